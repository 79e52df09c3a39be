"""What the bodies of the OpenAI APIs must have and what their read members may be.

Engines accept more than the API's reference says; what vLLM or SGLang accepts passes.
Source: vllm: vllm/entrypoints/openai, vllm/entrypoints/pooling/base/protocol.py, vllm/entrypoints/chat_utils.py; sglang:
python/sglang/srt/entrypoints/openai/protocol.py
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from epp.framework.types import Api
from plugins.parsers.shapes import (
    FLAG,
    INTEGER,
    LIST,
    OBJECT,
    PROMPTS,
    TEXT,
    Shape,
    either,
    list_of,
    members,
)


class Form(NamedTuple):
    """The bodies of one API."""

    api: Api
    failure: str
    """How the text of a refusal begins."""
    required: tuple[str, ...]
    """Members of which one must be there."""
    shape: Shape
    caps: tuple[str, ...] = ()
    """Members with a limit of output tokens, the first usable one counts."""
    may_be_empty: bool = False
    """The required member may be an empty text or list."""
    usage_reader: str = "openai-usage"
    document_reader: str = ""

    def problem(self, document: Mapping[str, object]) -> str:
        """What is wrong with a body and where, "" if nothing is."""
        for name in self.required:  # a loop, because a generator costs more than all of it
            value = document.get(name)
            if value or (value is not None and (self.may_be_empty or type(value) not in (str, list))):
                problem = self.shape.problem(document)
                return problem.removeprefix(".") if problem else problem
        return f"{' or '.join(self.required)} is missing or empty"


SALT = either("a string or a list of strings", TEXT, list_of(TEXT, "a list of strings"))
"""SGLang takes a salt for each prompt."""
_MEDIA = either("a URL or an object with a url", TEXT, members({"url": TEXT}))
_PART = members(
    {
        "type": TEXT,
        "text": TEXT,
        "image_url": _MEDIA,
        "video_url": _MEDIA,
        "audio_url": _MEDIA,
        "input_audio": members({"data": TEXT, "format": TEXT}),
    }
)
_PARTS = list_of(either("a string or an object", TEXT, _PART), "a list of content parts")
_MESSAGE = members({"role": TEXT, "content": either("a string or a list of content parts", TEXT, _PARTS), "tool_calls": LIST})
_CHAT_MEMBERS: Mapping[str, Shape] = {
    "messages": list_of(_MESSAGE, "a list of messages"),
    "tools": LIST,
    "documents": LIST,
    "chat_template": TEXT,
    "return_assistant_tokens_mask": FLAG,
    "continue_final_message": FLAG,
    "add_generation_prompt": FLAG,
    "chat_template_kwargs": OBJECT,
    "cache_salt": SALT,
}
_WITH_MEDIA = list_of(members({"text": TEXT}), "a list of objects with text or an image")


def _embedded(values: list[object]) -> str:
    """As a prompt, or SGLang's list of objects with a text and an image."""
    inputs = _WITH_MEDIA if values and type(values[0]) is dict else PROMPTS
    return inputs.problem(values)


_EMBEDDING_MEMBERS = {**_CHAT_MEMBERS, "input": Shape(PROMPTS.what, {str: None, list: _embedded})}
_ITEM = members({"type": TEXT, "role": TEXT})

CHAT = Form(
    Api.CHAT,
    "invalid chat completions request: must have valid messages field",
    ("messages",),
    members(_CHAT_MEMBERS),
    ("max_completion_tokens", "max_tokens"),
)
COMPLETIONS = Form(
    Api.COMPLETIONS,
    "invalid completions request: must have prompt field",
    ("prompt", "prompt_embeds"),
    members({"prompt": PROMPTS, "cache_salt": SALT}),
    ("max_tokens",),
)
EMBEDDINGS = Form(
    Api.EMBEDDINGS,
    "invalid embeddings request: must have input field",
    ("input", "messages"),
    members(_EMBEDDING_MEMBERS),
)
RESPONSES = Form(
    Api.RESPONSES,
    "invalid responses request: must have input field",
    ("input",),
    members({"cache_salt": SALT}),
    ("max_output_tokens",),
    may_be_empty=True,
    document_reader="openai-response",
)
CONVERSATIONS = Form(
    Api.CONVERSATIONS,
    "invalid conversations request: must have items field",
    ("items",),
    members({"items": list_of(_ITEM, "a list of items"), "metadata": OBJECT, "cache_salt": SALT}),
    usage_reader="",
)
IMAGES = Form(
    Api.IMAGES,
    "invalid images generations request: must have prompt field",
    ("prompt",),
    members({"prompt": TEXT, "n": INTEGER, "size": TEXT, "num_inference_steps": INTEGER}),
)

BY_SUFFIX: Mapping[str, Form] = {
    "conversations": CONVERSATIONS,
    "responses": RESPONSES,
    "chat/completions": CHAT,
    "chat/completions/render": CHAT,
    "completions": COMPLETIONS,
    "completions/render": COMPLETIONS,
    "embeddings": EMBEDDINGS,
    "images/generations": IMAGES,
}
