"""Request bodies and the prompts in them: what every reader of prompt blocks must find."""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

from epp.framework.canonical_prompt import Prompt, token_bytes


class Body(NamedTuple):
    """One body."""

    name: str
    members: dict[str, Any] | bytes
    """As they are sent, or all of the body."""
    prompts: tuple[Prompt, ...] | None = ()
    """None = the body cannot be read."""
    template: tuple[tuple[str, Any], ...] = ()
    """The members that change a prompt as a whole."""

    @property
    def text(self) -> bytes:
        return self.members if isinstance(self.members, bytes) else orjson.dumps(self.members)


def text(value: str) -> Prompt:
    """``|`` ends a part, ``^`` a field of one."""
    return Prompt(False, value.replace("|", "\x1e").replace("^", "\x1f").encode())


def tokens(*ids: int) -> Prompt:
    return Prompt(True, token_bytes(ids))


USER = {"role": "user", "content": "hi"}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"z": 1, "a": [1.5, 1e22, True, None]}}}]
TOOLS_TEXT = '[{"type":"function","function":{"name":"f","parameters":{"z":1,"a":[1.5,1e+22,true,null]}}}]'
PNG = "data:image/png;base64,iVBORw0KGgo="
PNG_HASH = "f6354619c84a0047"
"""Of PNG; the others are those of ``u``, and of ``d``."""
U, D = "610001cba66e07f0", "5000d8f2907d14e4"


def chat(*content: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(content)}]}


BODIES = [
    # ── which member holds the prompt ──
    Body("chat", {"messages": [{"role": "system", "content": "s"}, USER]}, (text("system^s|user^hi|"),)),
    Body("a chat of nothing", {"messages": []}, (text(""),)),
    Body("messages that are no list", {"messages": "x", "prompt": "p"}, (text("p"),)),
    Body("completions: a text", {"prompt": "hé"}, (text("hé"),)),
    Body("completions: an empty text", {"prompt": ""}, (text(""),)),
    Body("completions: texts", {"prompt": ["a", "bc"]}, (text("a"), text("bc"))),
    Body("completions: token ids", {"prompt": [1, 2, 4294967295]}, (tokens(1, 2, 4294967295),)),
    Body("completions: lists of token ids", {"prompt": [[1, 2], [3]]}, (tokens(1, 2), tokens(3))),
    Body("completions: an empty list of token ids among others", {"prompt": [[], [3]]}, (tokens(), tokens(3))),
    Body("completions: nothing", {"prompt": []}),
    Body("completions: null", {"prompt": None, "input": "x"}, (text("x"),)),
    Body("completions: an id too large", {"prompt": [1, 4294967296]}),
    Body("completions: an id beyond all integers", b'{"prompt":[1,99999999999999999999999]}'),
    Body("completions: a negative id", {"prompt": [1, -1]}),
    Body("completions: a fraction", {"prompt": [1, 2.0]}),
    Body("completions: a boolean", {"prompt": [1, True]}),
    Body("completions: texts and ids", {"prompt": ["a", 1]}),
    Body("completions: an id beside lists", {"prompt": [[1], 2]}),
    Body("completions: texts in lists", {"prompt": [[1], ["a"]]}),
    Body("completions: null in a list", {"prompt": [None]}),
    Body("a prompt that is an object, as in the Responses API", {"prompt": {"id": "p"}, "input": "x"}, (text("x"),)),
    Body("a prompt that is a number", {"prompt": 5}),
    Body("embeddings: a text", {"input": "x"}, (text("x"),)),
    Body("embeddings: texts", {"input": ["x", "y"]}, (text("x"), text("y"))),
    Body("embeddings: token ids", {"input": [7, 8]}, (tokens(7, 8),)),
    Body("responses: a text and instructions", {"instructions": "be", "input": "x"}, (text("be|user^x|"),)),
    Body("responses: no instructions", {"instructions": None, "tools": None, "input": "x"}, (text("x"),)),
    Body("responses: empty instructions", {"instructions": "", "input": "x"}, (text("|user^x|"),)),
    Body("responses: a text and tools", {"tools": TOOLS, "input": "x"}, (text(f"{TOOLS_TEXT}|user^x|"),)),
    Body("responses: no tools in the list", {"tools": [], "input": "x"}, (text("user^x|"),)),
    Body(
        "responses: items",
        {"input": [USER, {"type": "function_call", "name": "f", "arguments": "{}"}, "x"], "instructions": [{"text": "i"}]},
        (text('i|user^hi|{"type":"function_call","name":"f","arguments":"{}"}|x|'),),
    ),
    Body("responses: items that begin with a text", {"input": ["x", USER]}, (text("x|user^hi|"),)),
    Body("responses: an input of another kind", {"input": 5, "instructions": "i"}, (text("i|user^5|"),)),
    Body("conversations", {"items": [USER]}, (text("user^hi|"),)),
    Body("conversations: items that are no list", {"items": "x", "text": "t"}, (text("t"),)),
    Body("generate: a text", {"text": "t", "input_ids": [1]}, (text("t"),)),
    Body("generate: texts", {"text": ["t", "u"]}, (text("t"), text("u"))),
    Body("generate: input_ids", {"text": None, "input_ids": [1, 2]}, (tokens(1, 2),)),
    Body("generate: token_ids", {"token_ids": [[1], [2]]}, (tokens(1), tokens(2))),
    Body("generate: a text of another kind counts", {"text": 5, "input_ids": [1, 2]}),
    Body("none of them", {"model": "m", "query": "q", "documents": None}),
    Body("an empty object", {}),
    # ── parts of a chat ──
    Body("tools", {"messages": [USER], "tools": TOOLS}, (text(f"{TOOLS_TEXT}|user^hi|"),)),
    Body("tools and functions", {"messages": [USER], "functions": [1], "tools": [2]}, (text("[2]|[1]|user^hi|"),)),
    Body("tools that are no list", {"messages": [USER], "tools": {"a": 1}}, (text("user^hi|"),)),
    Body("a system text", {"messages": [USER], "system": "s"}, (text("s|user^hi|"),)),
    Body("system blocks", {"messages": [], "system": [{"type": "text", "text": "a"}, {"text": "b"}, "c"]}, (text("abc|"),)),
    Body("a system of another kind", {"messages": [], "system": {"text": "a"}}, (text(""),)),
    Body(
        "a system block that changes with each request",
        {
            "messages": [],
            "system": [{"type": "text", "text": "x-anthropic-billing-header: cch=1;"}, {"type": "text", "text": "a"}],
        },
        (text("a|"),),
    ),
    Body("no system block is left", {"messages": [], "system": ["x-anthropic-billing-header"]}, (text("|"),)),
    Body(
        "a system text that only begins so stays",
        {"messages": [], "system": "x-anthropic-billing-header"},
        (text("x-anthropic-billing-header|"),),
    ),
    Body("a message without role", {"messages": [{"content": "x"}]}, (text("^x|"),)),
    Body("a role of another kind", {"messages": [{"role": 1, "content": "x"}]}, (text("^x|"),)),
    Body("a message without content", {"messages": [{"b": 1, "a": "é"}]}, (text('{"b":1,"a":"é"}|'),)),
    Body("a message that is a text", {"messages": ["x"]}, (text("x|"),)),
    Body("a message of another kind", {"messages": [1, None, [1, "a"]]}, (text('1|null|[1,"a"]|'),)),
    Body("content of null", {"messages": [{"role": "assistant", "content": None}]}, (text("assistant^|"),)),
    Body("content of another kind", {"messages": [{"role": "user", "content": {"text": "x"}}]}, (text('user^{"text":"x"}|'),)),
    Body(
        "what follows the content",
        {
            "messages": [
                {
                    "role": "assistant",
                    "reasoning_content": "rc",
                    "reasoning": "r",
                    "name": "n",
                    "tool_call_id": "t",
                    "tool_calls": [{"id": "1", "function": {"name": "f"}}],
                    "content": "c",
                    "other": "o",
                },
                {"role": "tool", "content": "c", "tool_calls": None, "name": ""},
            ]
        },
        (text('assistant^c^[{"id":"1","function":{"name":"f"}}]^"t"^"n"^"r"^"rc"|tool^c^""|'),),
    ),
    # ── content ──
    Body(
        "texts of all kinds",
        chat(
            "a", {"text": "b"}, {"type": None, "text": "c"}, {"type": "text", "text": "d"}, {"type": "input_text", "text": "e"}
        ),
        (text("user^abcde|"),),
    ),
    Body("a text of the assistant", chat({"type": "output_text", "text": "a"}), (text("user^a|"),)),
    Body("a text of another type", chat({"type": "thinking", "text": "a"}), (text('user^{"type":"thinking","text":"a"}|'),)),
    Body("a type of another kind", chat({"type": ["text"], "text": "a"}), (text('user^{"type":["text"],"text":"a"}|'),)),
    Body("no text in a text block", chat({"type": "text", "text": 5}), (text('user^{"type":"text","text":5}|'),)),
    Body("other things as content", chat(1, None, [True], {"a": {}}), (text('user^1null[true]{"a":{}}|'),)),
    Body("escapes", chat({"a": '"\\\n\x01/é😀\x7f'}), (text('user^{"a":"\\"\\\\\\n\\u0001/é😀\x7f"}|'),)),
    Body(
        "numbers",
        b'{"messages":[[-0,1.0,1e3,1E-7,12345678901234567890,0.1,-5]]}',
        (text("[0,1.0,1000.0,1e-7,12345678901234567890,0.1,-5]|"),),
    ),
    Body("a key twice", b'{"messages":[{"b":1,"a":2,"b":3}]}', (text('{"b":3,"a":2}|'),)),
    Body("a member twice", b'{"prompt":"a","prompt":"b"}', (text("b"),)),
    Body("blanks", b' {"messages" : [ { "a" : [ 1 , 2 ] } ] } ', (text('{"a":[1,2]}|'),)),
    # ── media ──
    Body(
        "media: image_url as an object",
        chat({"type": "image_url", "image_url": {"url": PNG, "detail": "low"}}),
        (text(f"user^image_url:{PNG_HASH}|"),),
    ),
    Body("media: image_url as a text", chat({"type": "image_url", "image_url": "u"}), (text(f"user^image_url:{U}|"),)),
    Body("media: input_image", chat({"type": "input_image", "image_url": "u"}), (text(f"user^input_image:{U}|"),)),
    Body("media: input_image as a file", chat({"type": "input_image", "file_id": "u"}), (text(f"user^input_image:{U}|"),)),
    Body(
        "media: audio_url, video_url",
        chat({"type": "audio_url", "audio_url": {"url": "u"}}, {"type": "video_url", "video_url": {"url": "d"}}),
        (text(f"user^audio_url:{U}video_url:{D}|"),),
    ),
    Body(
        "media: input_audio",
        chat({"type": "input_audio", "input_audio": {"format": "wav", "data": "d"}}),
        (text(f"user^input_audio:{D}|"),),
    ),
    Body(
        "media: input_file",
        chat({"type": "input_file", "filename": "a", "file_data": "d"}, {"type": "input_file", "file_url": "u"}),
        (text(f"user^input_file:{D}input_file:{U}|"),),
    ),
    Body(
        "media: file",
        chat({"type": "file", "file": {"file_data": "d", "file_id": "u"}}, {"type": "file", "file": {"file_id": "u"}}),
        (text(f"user^file:{D}file:{U}|"),),
    ),
    Body(
        "media: Anthropic's sources",
        chat(
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "d"}},
            {"type": "document", "source": {"type": "url", "url": "u"}},
            {"type": "image", "source": {"file_id": "u"}},
        ),
        (text(f"user^image:{D}document:{U}image:{U}|"),),
    ),
    Body(
        "media: a bare image",
        chat({"type": "image", "image": "d"}, {"type": "image", "url": "u"}, {"type": "image", "data": "d"}),
        (text(f"user^image:{D}image:{U}image:{D}|"),),
    ),
    Body(
        "media: its own member before others",
        chat({"type": "image_url", "url": "d", "image_url": {"data": "u"}}),
        (text(f"user^image_url:{U}|"),),
    ),
    Body(
        "media: a value of another kind is passed over",
        chat({"type": "image_url", "image_url": {"url": 5, "data": "u"}}),
        (text(f"user^image_url:{U}|"),),
    ),
    Body(
        "media: nothing in it",
        chat({"type": "image_url", "image_url": {}}),
        (text('user^{"type":"image_url","image_url":{}}|'),),
    ),
    Body("media: with a text of its own", chat({"type": "image", "text": "t", "url": "u"}), (text(f"user^image:{U}|"),)),
    # ── the template ──
    Body(
        "template: all",
        {
            "add_generation_prompt": False,
            "documents": [{"a": 1}],
            "messages": [USER],
            "chat_template": "t",
            "chat_template_kwargs": {"b": 1},
        },
        (text("user^hi|"),),
        (
            ("chat_template", "t"),
            ("chat_template_kwargs", {"b": 1}),
            ("documents", [{"a": 1}]),
            ("add_generation_prompt", False),
        ),
    ),
    Body(
        "template: of a completion",
        {"prompt": "p", "add_generation_prompt": True},
        (text("p"),),
        (("add_generation_prompt", True),),
    ),
    Body("template: null", {"messages": [USER], "chat_template": None}, (text("user^hi|"),)),
    Body("template: without a prompt", {"documents": ["d"]}, (), (("documents", ["d"]),)),
    # ── what cannot be read ──
    Body("unreadable: nothing", b"", None),
    Body("unreadable: no JSON", b'{"prompt":', None),
    Body("unreadable: no object", b'["prompt"]', None),
    Body("unreadable: text after it", b'{"prompt":"a"} x', None),
    Body("unreadable: no Unicode", b'{"prompt":"\xff"}', None),
    Body("unreadable: half a surrogate pair", b'{"prompt":"\\ud83d"}', None),
    Body("unreadable: NaN", b'{"prompt":"a","x":NaN}', None),
]
