"""What requests make a simulated server compute."""

from __future__ import annotations

from collections.abc import Sequence as Many

import orjson

from epp.simulate.exchange import ApiError, Json, bad_request
from epp.simulate.prompts import chat_prompt, messages_prompt, responses_prompt, text_prompts
from epp.simulate.sequence import Sequence
from epp.simulate.service import is_true, whole_number
from epp.simulate.text import Speaker


class Work:
    """Reads requests as a server does.

    Args:
        seed: another seed gives other answers, of the same length.
        lora: names of adapters; any other model name is that of the base model.
    """

    def __init__(self, seed: int, lora: Many[str] = ()) -> None:
        self._speaker = Speaker(seed)
        self._adapters = frozenset(lora)

    def sequences(self, path: str, body: bytes, prompt: bytes | None, output_tokens: int) -> tuple[list[Sequence], bool]:
        """What a request makes it compute, and whether the answer is streamed.

        Args:
            path: of the request.
            body: as it arrived.
            prompt: the one in the body of a stream, if that is known.
            output_tokens: length of each answer.

        Raises:
            ApiError: it refuses the request.
        """
        if prompt is not None:
            return [self._sequence(prompt, output_tokens, {})], True
        document = _document(body)
        prompts, answers = _prompts(path, document)
        choices = whole_number(document, "n", 1, 1, 128) if answers else 1
        tokens = max(1, output_tokens) if answers else 0
        sequences = [self._sequence(prompt, tokens, document, variant) for prompt in prompts for variant in range(choices)]
        return sequences, answers and is_true(document, "stream")

    def _sequence(self, prompt: bytes, tokens: int, document: Json, variant: int = 0) -> Sequence:
        model, salt = document.get("model"), document.get("cache_salt")
        return Sequence(
            prompt,
            self._speaker.answer(prompt, tokens, variant) if tokens else b"",
            adapter=model if isinstance(model, str) and model in self._adapters else None,
            salt=salt if isinstance(salt, str) else "",
        )


def _document(body: bytes) -> Json:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise bad_request(f"the body is no JSON: {error}") from None
    if not isinstance(document, dict):
        raise bad_request("the body must be a JSON object")
    return document


def _prompts(path: str, document: Json) -> tuple[list[bytes], bool]:
    """The prompts of a request, and whether they are answered by text."""
    path = path.partition("?")[0]
    if path.endswith("/chat/completions"):
        return [chat_prompt(document)], True
    if path.endswith("/completions"):
        return text_prompts(document.get("prompt"), "prompt"), True
    if path.endswith("/messages"):
        return [messages_prompt(document)], True
    if path.endswith("/responses"):
        return [responses_prompt(document)], True
    if path.endswith("/embeddings"):
        return text_prompts(document.get("input"), "input"), False
    raise ApiError(404, f"simulated servers do not know the path {path}")
