"""What the APIs of one server share: its models, its engine, its voice, the reading of limits."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Sequence as Many
from dataclasses import dataclass
from typing import Any

from epp.simulate.blocks import BYTES_PER_TOKEN, tokens_of
from epp.simulate.driver import EngineDriver, Generation
from epp.simulate.exchange import ApiError, Exchange, Json, bad_request
from epp.simulate.options import ServerOptions
from epp.simulate.sequence import Sequence
from epp.simulate.text import Speaker
from epp.simulate.transfers import Offers, check_digest

_MAX_SEQUENCES = 128
"""Prompts times choices in one request."""


@dataclass(frozen=True, slots=True)
class Limit:
    """How long the answer becomes."""

    tokens: int
    finish: str
    """``length`` when the request set it, else ``stop``."""


class Service:
    """One model server behind its HTTP interface.

    Args:
        options: models, limits.
        driver: of its engine.
        host, port: where other servers reach this one.
    """

    def __init__(self, options: ServerOptions, driver: EngineDriver, host: str = "127.0.0.1", port: int = 0) -> None:
        self.options = options
        self.driver = driver
        self.started_s = int(time.time())
        self._speaker = Speaker(options.engine.seed)
        self._ids = random.Random(options.engine.seed)
        self.offers = Offers(str(uuid.uuid4()), host, port, driver, options.disaggregation.hold_s)
        self._adapters: dict[str, str | None] = dict.fromkeys(options.models) | {name: name for name in options.lora}

    def new_id(self, prefix: str) -> str:
        """An id as the APIs have them, ``chatcmpl-...``; the same again for the same seed."""
        return f"{prefix}{self._ids.getrandbits(128):032x}"

    def model(self, body: Json) -> str:
        """The served model that the request names; without a name the first one.

        Raises:
            ApiError: 404, there is no such model; 400, the name is not a string.
        """
        name = body.get("model", self.options.models[0])
        if not isinstance(name, str):
            raise bad_request("model must be a string", "model")
        if name not in self._adapters:
            raise ApiError(404, f"The model `{name}` does not exist.", "model")
        return name

    def limit(self, body: Json, *members: str) -> Limit:
        """The length of the answer, from the first of ``members`` that is there.

        Raises:
            ApiError: it is not a positive whole number.
        """
        member = next((name for name in members if body.get(name) is not None), None)
        if member is None:
            return Limit(self.options.default_output_tokens, "stop")
        return Limit(whole_number(body, member, 1, 1, 2**31), "length")

    def generate(
        self, exchange: Exchange, model: str, prompts: Many[bytes], limit: Limit, body: Json, choices: int = 1
    ) -> Generation:
        """Let the engine work: ``choices`` answers for each prompt, in this order.

        Raises:
            ApiError: too many sequences, a prompt that cannot fit, or one that is not what another server has computed.
        """
        handover = exchange.handover
        if handover.fetched_digest:
            check_digest(handover.fetched_digest, prompts)
        if len(prompts) * choices > _MAX_SEQUENCES:
            raise bad_request(f"prompts times n must be at most {_MAX_SEQUENCES}", "n")
        room = self.options.engine.max_model_len
        longest = max(max(1, tokens_of(len(prompt))) for prompt in prompts)
        if longest + limit.tokens > room:
            message = (
                f"This model's maximum context length is {room} tokens. However, your request has {longest} input tokens and "
                f"asks for {limit.tokens} output tokens. Please reduce the length of the input or the number of output tokens."
            )
            raise bad_request(message, "input_tokens")
        salt = body.get("cache_salt")
        sequences = [
            Sequence(
                prompt,
                self._speaker.answer(prompt, limit.tokens, variant),
                adapter=self._adapters[model],
                salt=salt if isinstance(salt, str) else "",
                watched=is_true(body, "stream"),
                finish=limit.finish,
                kept=handover.keeps,
                transferred=bool(handover.fetched_digest),
            )
            for prompt in prompts
            for variant in range(choices)
        ]
        return Generation(self.driver, sequences)

    def offer(self, exchange: Exchange, work: Generation) -> Json:
        """What the answer says about blocks that are kept for another server; nothing if none are."""
        return self.offers.add(self.new_id("transfer-"), work) if exchange.handover.keeps else {}

    def models(self) -> Json:
        """The answer to ``GET /v1/models``."""
        room = self.options.engine.max_model_len
        root = self.options.models[0]
        return {"object": "list", "data": [self._card(name, root, None, room) for name in self.options.models]
                + [self._card(name, name, root, None) for name in self.options.lora]}  # fmt: skip

    def _card(self, name: str, root: str, parent: str | None, max_model_len: int | None) -> Json:
        return {
            "id": name, "object": "model", "created": self.started_s, "owned_by": "vllm", "root": root, "parent": parent,
            "max_model_len": max_model_len, "permission": [],
        }  # fmt: skip


def is_true(body: Json, member: str) -> bool:
    """A boolean member; missing and null are false.

    Raises:
        ApiError: it is something else.
    """
    value: Any = body.get(member)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise bad_request(f"{member} must be a boolean", member)


def whole_number(body: Json, member: str, default: int, low: int, high: int) -> int:
    """An integer member within bounds.

    Raises:
        ApiError: it is something else, or out of bounds.
    """
    value: Any = body.get(member)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise bad_request(f"{member} must be a whole number of at least {low}", member)
    return value


def news(sequence: Sequence, sent: int) -> list[bytes]:
    """The tokens of an answer that came after the first ``sent``."""
    text = sequence.answer
    ends = range(sent * BYTES_PER_TOKEN, sequence.produced * BYTES_PER_TOKEN, BYTES_PER_TOKEN)
    return [text[start : start + BYTES_PER_TOKEN] for start in ends]
