"""A tokenizer service as llm-d's, on a Unix socket: real gRPC, and messages that protobuf's own runtime reads and writes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc import aio

FIELD = descriptor_pb2.FieldDescriptorProto
KINDS = {"string": FIELD.TYPE_STRING, "bool": FIELD.TYPE_BOOL, "uint32": FIELD.TYPE_UINT32, "int32": FIELD.TYPE_INT32,
         "double": FIELD.TYPE_DOUBLE}  # fmt: skip
MESSAGES: Mapping[str, str] = {
    # name → fields by number from 1: * = repeated, ? = explicitly optional, @ = map from text, | = one of
    "TokenizeRequest": "string input, string model_name, bool add_special_tokens",
    "TokenizeResponse": "uint32* input_ids, bool success, string error_message, uint32* offset_pairs",
    "ConversationTurn": "ChatMessage* messages",
    "ChatTemplateRequest": "ConversationTurn* conversation_turns, ToolDescription* tools, Document* documents, "
    "string chat_template, bool return_assistant_tokens_mask, bool continue_final_message, bool add_generation_prompt, "
    "Value@ chat_template_kwargs, string model_name",
    "ImageUrl": "string url",
    "ContentPart": "string type, string? text, ImageUrl image_url",
    "ChatMessage": "string role, string? content, ContentPart* content_parts, string? tool_calls_json",
    "ToolDescription": "Value@ tool",
    "Document": "Value@ document",
    "Value": "string| string_value, double| number_value, bool| bool_value, ListValue| list_value, StructValue| struct_value",
    "ListValue": "Value* values",
    "StructValue": "Value@ fields",
    "ChatTemplateResponse": "string rendered_prompt, bool success, string error_message",
    "InitializeTokenizerRequest": "string model_name, bool enable_thinking, bool add_generation_prompt",
    "InitializeTokenizerResponse": "bool success, string error_message",
    "PlaceholderRange": "int32 offset, int32 length",
    "StringList": "string* values",
    "PlaceholderRangeList": "PlaceholderRange* ranges",
    "MultiModalFeatures": "StringList@ mm_hashes, PlaceholderRangeList@ mm_placeholders",
    "RenderChatCompletionRequest": "string model_name, ChatMessage* messages, string? tools_json, string chat_template, "
    "bool? add_generation_prompt, bool continue_final_message, string? chat_template_kwargs",
    "RenderChatCompletionResponse": "string request_id, uint32* token_ids, MultiModalFeatures features, bool success, "
    "string error_message",
    "RenderCompletionRequest": "string model_name, string prompt",
    "RenderCompletionResponse": "string request_id, uint32* token_ids, bool success, string error_message",
}
METHODS = {
    "Tokenize": ("TokenizeRequest", "TokenizeResponse"),
    "RenderChatTemplate": ("ChatTemplateRequest", "ChatTemplateResponse"),
    "InitializeTokenizer": ("InitializeTokenizerRequest", "InitializeTokenizerResponse"),
    "RenderChatCompletion": ("RenderChatCompletionRequest", "RenderChatCompletionResponse"),
    "RenderCompletion": ("RenderCompletionRequest", "RenderCompletionResponse"),
}


def _add_field(message: Any, number: int, text: str) -> None:
    kind, name = text.split()
    kind, mark = (kind[:-1], kind[-1]) if kind[-1] in "*?@|" else (kind, "")
    field = message.field.add(
        name=name, number=number, label=FIELD.LABEL_REPEATED if mark in ("*", "@") else FIELD.LABEL_OPTIONAL
    )
    if mark == "@":
        entry = message.nested_type.add(name=f"{name.title().replace('_', '')}Entry")
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, label=FIELD.LABEL_OPTIONAL, type=FIELD.TYPE_STRING)
        entry.field.add(
            name="value", number=2, label=FIELD.LABEL_OPTIONAL, type=FIELD.TYPE_MESSAGE, type_name=f".tokenization.{kind}"
        )
        field.type, field.type_name = FIELD.TYPE_MESSAGE, f".tokenization.{message.name}.{entry.name}"
        return
    if kind in KINDS:
        field.type = KINDS[kind]
    else:
        field.type, field.type_name = FIELD.TYPE_MESSAGE, f".tokenization.{kind}"
    if mark == "|":
        field.oneof_index = 0
        if not message.oneof_decl:
            message.oneof_decl.add(name="value")
    elif mark == "?":
        field.proto3_optional, field.oneof_index = True, len(message.oneof_decl)
        message.oneof_decl.add(name=f"_{name}")


def _types() -> dict[str, Any]:
    """In a pool of their own: another description of the package may be in the process's."""
    file = descriptor_pb2.FileDescriptorProto(name="tokenizer.proto", package="tokenization", syntax="proto3")
    for name, members in MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, text in enumerate(members.split(", "), 1):
            _add_field(message, number, text)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tokenization.{name}")) for name in MESSAGES}


TYPES = _types()
Respond = Callable[[Any], Any]
"""Request → members of the answer, or a status."""


class Service:
    """Answers as told, and keeps what it was asked."""

    def __init__(self, **respond: Respond) -> None:
        self.respond: dict[str, Respond] = {"InitializeTokenizer": lambda _: {"success": True}, **respond}
        self.asked: list[tuple[str, Any]] = []

    def requests(self, method: str) -> list[Any]:
        """What a method was asked."""
        return [request for name, request in self.asked if name == method]

    def handlers(self) -> grpc.GenericRpcHandler:
        """All methods that it knows."""
        return grpc.method_handlers_generic_handler(
            "tokenization.TokenizationService", {name: self._handler(name) for name in self.respond}
        )

    def _handler(self, name: str) -> grpc.RpcMethodHandler[Any, Any]:
        request_type, answer_type = (TYPES[kind] for kind in METHODS[name])

        async def answer(request: Any, context: aio.ServicerContext[Any, Any]) -> Any:
            self.asked.append((name, request))
            found = self.respond[name](request)
            if isinstance(found, grpc.StatusCode):
                await context.abort(found, "as told")
            return answer_type(**found)

        return grpc.unary_unary_rpc_method_handler(
            answer, request_deserializer=request_type.FromString, response_serializer=answer_type.SerializeToString
        )


@asynccontextmanager
async def serving(service: Service, socket: Path) -> AsyncIterator[None]:
    """The service on a socket, until the block ends."""
    server = aio.server()
    server.add_generic_rpc_handlers((service.handlers(),))
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)
