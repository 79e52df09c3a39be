"""A tokenizer service as llm-d's, on a Unix socket: real gRPC, and messages that protobuf's own runtime reads and writes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from grpc import aio

from epp.framework.protos import tokenizer_pb2

METHODS = {
    "Tokenize": ("TokenizeRequest", "TokenizeResponse"),
    "RenderChatTemplate": ("ChatTemplateRequest", "ChatTemplateResponse"),
    "InitializeTokenizer": ("InitializeTokenizerRequest", "InitializeTokenizerResponse"),
    "RenderChatCompletion": ("RenderChatCompletionRequest", "RenderChatCompletionResponse"),
    "RenderCompletion": ("RenderCompletionRequest", "RenderCompletionResponse"),
}


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
        request_type, answer_type = (getattr(tokenizer_pb2, kind) for kind in METHODS[name])

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
