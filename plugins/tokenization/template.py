"""Chat templates: from a conversation to the text that the engine tokenizes, as transformers renders it.

Templates come with models, so they run in jinja2's sandbox, which lets them change nothing. Only the model's own are rendered,
never one that a client sends: a loop without end would hold a thread for ever.
Source: huggingface/transformers: src/transformers/utils/chat_template_utils.py; vllm-project/vllm: entrypoints/chat_utils.py
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from epp.framework.types import Json
from plugins.tokenization.backend import TokenizationError
from plugins.tokenization.chat import Chat, Message

DEFAULT, TOOL_USE = "default", "tool_use"
"""Names of templates: a model may have one for conversations with tools."""
_KEPT = ("role", "name", "tool_call_id", "reasoning", "reasoning_content")
"""Members of a message that engines hand on; content and calls of tools are prepared."""


class _Generation(Extension):
    """``{% generation %}`` marks an assistant's own words for training; here it is only its content."""

    tags = {"generation"}  # noqa: RUF012 — jinja2 declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplates:
    """The templates of a model, compiled.

    Args:
        sources: by name; ``default`` is the usual one.
        special_tokens: such as ``bos_token``, given to every template.
        now: local time.

    Raises:
        ValueError: one cannot be compiled.
    """

    def __init__(
        self, sources: Mapping[str, str], special_tokens: Mapping[str, str], now: Callable[[], datetime] = datetime.now
    ) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = lambda form: now().strftime(form)
        try:
            self._templates = {name: environment.from_string(source) for name, source in sources.items()}
            self._takes_parts = {name: _iterates_content(environment.parse(source)) for name, source in sources.items()}
        except jinja2.TemplateError as error:
            raise ValueError(f"the chat template cannot be compiled: {error}") from error
        self._special_tokens = special_tokens

    def render(self, chat: Chat) -> str:
        """The text of a conversation without media.

        Raises:
            TokenizationError: there is no template, or it refuses the conversation.
        """
        name = TOOL_USE if chat.tools and TOOL_USE in self._templates else DEFAULT
        template = self._templates.get(name)
        if template is None:
            raise TokenizationError("the model has no chat template")
        messages = [_prepared(message, as_parts=self._takes_parts[name]) for message in chat.messages]
        context: dict[str, Any] = {
            **self._special_tokens,
            **chat.template_options,
            "messages": messages,
            "tools": [_tool(tool) for tool in chat.tools] or None,
            "documents": chat.documents or None,
            "add_generation_prompt": chat.add_generation_prompt,
        }
        try:
            text = template.render(context)
        except Exception as error:
            # A template is a program of somebody else, and meets what clients send.
            raise TokenizationError(f"the chat template failed: {type(error).__name__}: {error}") from error
        return _without_end(text, messages) if chat.continue_final_message else text


def _to_json(
    value: Json,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As Python prints it, in the order that the client wrote; jinja2's own filter escapes HTML and sorts."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _iterates_content(tree: nodes.Template) -> bool:
    """Whether a template goes through the parts of a message's content; others take it as one text."""
    copies = {
        assign.target.name
        for assign in tree.find_all(nodes.Assign)
        if isinstance(assign.target, nodes.Name) and _is_content(assign.node)
    }
    return any(
        _is_content(loop.iter) or (isinstance(loop.iter, nodes.Name) and loop.iter.name in copies)
        for loop in tree.find_all(nodes.For)
    )


def _is_content(node: nodes.Node) -> bool:
    if isinstance(node, nodes.Getattr):
        return node.attr == "content"
    return isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const) and node.arg.value == "content"


def _prepared(message: Message, *, as_parts: bool) -> dict[str, Json]:
    """A message as engines give it to templates: content in the form that the template expects, arguments as objects."""
    content = message.get("content")
    prepared = {name: message[name] for name in _KEPT if message.get(name) is not None}
    texts = _texts(content)
    if as_parts:
        prepared["content"] = [{"type": "text", "text": text} for text in texts]
    else:
        prepared["content"] = "\n".join(texts)
    if calls := message.get("tool_calls"):
        prepared["tool_calls"] = [_call(call) for call in calls] if isinstance(calls, list) else calls
    return prepared


def _texts(content: Json) -> Sequence[str]:
    if isinstance(content, str):
        return (content,)
    parts = content if isinstance(content, list) else ()
    found = (part if isinstance(part, str) else part.get("text", "") for part in parts if isinstance(part, (str, dict)))
    return [text for text in found if isinstance(text, str)]


def _call(call: Json) -> Json:
    function = call.get("function") if isinstance(call, dict) else None
    arguments = function.get("arguments") if isinstance(function, dict) else None
    if not isinstance(call, dict) or not isinstance(function, dict) or not isinstance(arguments, str):
        return call
    try:
        decoded = json.loads(arguments) if arguments else {}
    except ValueError as error:
        raise TokenizationError(f"the arguments of a tool call are not JSON: {error}") from error
    return {**call, "function": {**function, "arguments": decoded}}


def _tool(tool: Json) -> Json:
    """A tool with the members in the order in which engines dump them."""
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(tool, dict) or not isinstance(function, dict):
        return tool
    ordered = {name: function.get(name) for name in ("name", "description", "parameters")}
    return {"type": tool.get("type", "function"), "function": {**ordered, **function}}


def _without_end(text: str, messages: Sequence[Mapping[str, Json]]) -> str:
    """The text up to the end of the last message's content, so that the model goes on with it."""
    contents = _texts(messages[-1].get("content")) if messages else ()
    last = contents[-1] if contents else ""
    start = text.rfind(last.strip())
    if not last.strip() or start < 0:
        raise TokenizationError("the last message is not in the rendered text, so it cannot be continued")
    whole = text[start : start + len(last.lstrip())] == last
    return text[: start + len(last.lstrip() if whole else last.strip())]
