"""Chat templates as transformers and vLLM apply them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from plugins.tokenization.backend import TokenizationError
from plugins.tokenization.chat import Chat, prompt_of
from plugins.tokenization.template import ChatTemplates
from tests.unit.plugins.tokenization.bodies import anthropic, chat, responses

NOW = datetime(2026, 1, 2, 3, 4)  # noqa: DTZ001 — templates print local time
TOOL = {"type": "function", "function": {"parameters": {"z": 1, "a": "<ü>"}, "name": "f"}}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"b": 1, "a": 2}'}}


def render(template: str | dict[str, str], body: Any, **special: str) -> str:
    sources = {"default": template} if isinstance(template, str) else template
    prompt = prompt_of(body)
    assert isinstance(prompt, Chat)
    return ChatTemplates(sources, special, now=lambda: NOW).render(prompt)


EACH = "{% for m in messages %}{{ m.role }}={{ m.content }};{% endfor %}"
PARTS = "{% for m in messages %}{% for p in m['content'] %}[{{ p.type }}:{{ p.text }}]{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "body", "expected"),
    [
        pytest.param(EACH, chat("a", {"role": "assistant", "content": "b"}), "user=a;assistant=b;", id="messages"),
        pytest.param(EACH, chat([{"type": "text", "text": "a"}, "b"]), "user=a\nb;", id="parts as text"),
        pytest.param(EACH, chat({"role": "assistant", "content": None}), "assistant=;", id="no content"),
        pytest.param(PARTS, chat("a"), "[text:a]", id="text as parts"),
        pytest.param(PARTS.replace("m['content']", "m.content"), chat("a"), "[text:a]", id="text as parts, by attribute"),
        pytest.param(
            "{% for m in messages %}{% set c = m.content %}{% for p in c %}{{ p.text }}{% endfor %}{% endfor %}",
            chat([{"type": "text", "text": "a"}, "b"]), "ab", id="parts through a variable",
        ),
        pytest.param("{% if add_generation_prompt %}G{% endif %}", chat("a"), "G", id="prefix 97: a prompt unless told"),
        pytest.param("{% if add_generation_prompt %}G{% endif %}", chat("a", add_generation_prompt=False), "", id="unwanted"),
        pytest.param("{{ tools }}", chat("a", tools=[]), "None", id="no tools are None"),
        pytest.param(
            "{{ tools | tojson }}", chat("a", tools=[TOOL]),
            '[{"type": "function", "function": {"name": "f", "description": null, "parameters": {"z": 1, "a": "<ü>"}}}]',
            id="prefix 98: tools in the client's order, nothing escaped",
        ),
        pytest.param("{{ tools[0].function.parameters | tojson(indent=1) }}", chat("a", tools=[TOOL]),
                     '{\n "z": 1,\n "a": "<ü>"\n}', id="indented"),
        pytest.param(
            "{% for m in messages %}{{ m.tool_calls[0].function.arguments.b }}{% endfor %}",
            chat({"role": "assistant", "content": None, "tool_calls": [CALL]}), "1", id="arguments are objects",
        ),
        pytest.param("{{ enable_thinking }}", chat("a", chat_template_kwargs={"enable_thinking": 0}), "0", id="options"),
        pytest.param("{{ documents[0].t }}", chat("a", documents=[{"t": "d"}]), "d", id="documents"),
        pytest.param("{{ strftime_now('%Y-%m-%d') }}", chat("a"), "2026-01-02", id="today"),
        pytest.param("{{ bos_token }}", chat("a"), "<s>", id="special tokens"),
        pytest.param("a\n  {% if true %}\nb\n  {% endif %}\nc", chat("a"), "a\nb\nc", id="blocks leave no line"),
        pytest.param("{% for m in messages %}{% if loop.index == 2 %}{% break %}{% endif %}x{% endfor %}", chat("a", "b"), "x",
                     id="loops can be left"),
        pytest.param("{% generation %}a{% endgeneration %}", chat("a"), "a", id="marks for training"),
        pytest.param(EACH, chat("a", {"role": "assistant", "content": "the "}, continue_final_message=True),
                     "user=a;assistant=the ", id="continued with its blank"),
        pytest.param(EACH.replace("content }}", "content | trim }}"), chat("a", {"role": "assistant", "content": " the "},
                     continue_final_message=True), "user=a;assistant=the", id="continued without them, as the template does"),
        pytest.param({"default": "d", "tool_use": "t"}, chat("a", tools=[TOOL]), "t", id="a template for tools"),
        pytest.param({"default": "d", "tool_use": "t"}, chat("a"), "d", id="not without tools"),
    ],
)  # fmt: skip
def test_rendering(template: str | dict[str, str], body: Any, expected: str) -> None:
    assert render(template, body, bos_token="<s>") == expected


@pytest.mark.parametrize(
    ("template", "body", "message"),
    [
        pytest.param({}, chat("a"), "no chat template", id="no template"),
        pytest.param("{{ raise_exception('roles must alternate') }}", chat("a"), "roles must alternate", id="refuses"),
        pytest.param("{{ messages[7].role.x }}", chat("a"), "UndefinedError", id="meets what it does not know"),
        pytest.param("{{ messages.append(1) }}", chat("a"), "SecurityError", id="wants to change something"),
        pytest.param("{{ ''.__class__.__mro__ }}", chat("a"), "SecurityError", id="wants to get out"),
        pytest.param("x", chat("a", continue_final_message=True), "cannot be continued", id="no end to continue"),
        pytest.param(EACH, chat("", continue_final_message=True), "cannot be continued", id="nothing to continue"),
        pytest.param(
            EACH, chat({"role": "assistant", "tool_calls": [{"function": {"arguments": "{"}}]}), "not JSON", id="arguments"
        ),
    ],
)
def test_what_cannot_be_rendered(template: str | dict[str, str], body: Any, message: str) -> None:
    with pytest.raises(TokenizationError, match=message):
        render(template, body)


def test_a_template_that_is_none() -> None:
    with pytest.raises(ValueError, match="cannot be compiled"):
        ChatTemplates({"default": "{% if %}"}, {})


# ── other APIs ──


@pytest.mark.parametrize(
    ("body", "messages", "tools"),
    [
        pytest.param(
            responses(
                "hi", instructions="be", tools=[{"type": "function", "name": "f", "parameters": {}}, {"type": "web_search"}]
            ),
            [{"role": "system", "content": "be"}, {"role": "user", "content": "hi"}],
            [{"type": "function", "function": {"name": "f", "parameters": {}}}], id="responses: text",
        ),
        pytest.param(
            responses([
                {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
                {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": "r"},
                {"type": "reasoning", "summary": []},
                {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"},
                                                                {"type": "input_image", "image_url": "u"}]},
                "junk",
            ]),
            [
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": None, "tool_calls": [
                    {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
                {"role": "tool", "tool_call_id": "c", "content": "r"},
                {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "u"}}]},
            ], [], id="responses: items",
        ),
        pytest.param(
            anthropic(
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": [
                    {"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "b"},
                    {"type": "tool_use", "id": "t", "name": "f", "input": {"z": 1, "a": "ü"}}]},
                {"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": "t", "content": [
                        {"type": "text", "text": "1"}, {"type": "text", "text": "2"},
                        {"type": "image", "source": {"data": "QUJD"}}]}]},
                system="be", tools=[{"name": "f", "description": "d", "input_schema": {"z": 1}, "strict": True}, {"name": "g"}],
            ),
            [
                {"role": "system", "content": "be"},
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": "b", "reasoning": "hm", "tool_calls": [
                    {"id": "t", "type": "function", "function": {"name": "f", "arguments": '{"z": 1, "a": "\\u00fc"}'}}]},
                {"role": "tool", "tool_call_id": "t", "content": "1\n2"},
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,QUJD"}}]},
            ],
            [
                {"type": "function", "function": {"name": "f", "parameters": {"z": 1}, "description": "d", "strict": True}},
                {"type": "function", "function": {"name": "g", "parameters": {"type": "object"}}},
            ], id="anthropic",
        ),
        pytest.param(
            anthropic(
                {"role": "system", "content": [{"type": "text", "text": "s"}]},
                {"role": "user", "content": [{"type": "text", "text": text} for text in ("", "a", "b")]},
                {"role": "assistant", "content": [{"type": "tool_result", "content": "r"}]},
                {"role": "assistant", "content": [{"type": "tool_use", "name": "f", "input": None}]},
            ),
            [
                {"role": "system", "content": "s"},
                {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
                {"role": "assistant", "content": "Tool result: r"},
                {"role": "assistant", "tool_calls": [
                    {"id": "call_0000000000", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            ], [], id="anthropic: odd ones",
        ),
    ],
)  # fmt: skip
def test_conversations_of_other_apis(body: Any, messages: list[object], tools: list[object]) -> None:
    prompt = prompt_of(body)
    assert isinstance(prompt, Chat)
    assert list(prompt.messages) == messages
    assert list(prompt.tools) == tools
