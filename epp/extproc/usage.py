"""Read the token usage of a response while it is forwarded: OpenAI's and Anthropic's, as one JSON document or as events.

A reader never raises and never changes anything: what cannot be read leaves the usage empty.

Source: llm-d-router: pkg/epp/framework/plugins/requesthandling/parsers (openai, anthropic), pkg/epp/handlers/response.go for
the merge rule; protocol decision D9 for the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import orjson

from epp.extproc.media import is_encoded, is_event_stream, is_json, media_type
from epp.extproc.sse import SseScanner
from epp.framework.types import Usage
from epp.seam import ResponseHead

MAX_JSON_BYTES = 1024 * 1024
"""Longest JSON body that is kept whole. Of a longer one (embeddings, images) only the tail is kept: servers write ``usage``
behind the payload."""

TAIL_BYTES = 64 * 1024
"""How much of the end of a long body is searched for ``usage``; room for the small members that servers write behind it."""

_MAX_TRIES = 8


class Block(NamedTuple):
    """One usage object; 0 and None where it says nothing."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int | None


class Dialect(NamedTuple):
    """How one API family reports usage."""

    of_body: Callable[[dict[str, object]], Block | None]
    of_event: Callable[[dict[str, object]], Block | None]
    member: str = "usage"
    """Member of a JSON document that holds it."""
    wanted: bytes = b"usage"
    """Events without these bytes are not decoded."""
    dull: bytes = b'"usage":null'
    """A text with ``wanted`` in it that does not count."""


class UsageReader:
    """Usage of one response; the kind of body is known from its first bytes if the headers do not tell."""

    __slots__ = ("_dialect", "_inner")

    def __init__(self, dialect: Dialect, head: ResponseHead) -> None:
        self._dialect = dialect
        self._inner: _Events | _Document | None = None
        media = media_type(head)
        if is_event_stream(media):
            self._inner = _Events(dialect)
        elif is_json(media):
            self._inner = _Document(dialect)

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body."""
        inner = self._inner
        if inner is None:
            start = data.lstrip()
            if not start:
                return
            inner = self._inner = _Document(self._dialect) if start.startswith(b"{") else _Events(self._dialect)
        inner.feed(data)

    def result(self) -> Usage:
        """The usage so far, as if the body ended here."""
        return self._inner.result() if self._inner is not None else Usage()


class NoUsage:
    """For bodies that cannot be read: compressed ones and gRPC."""

    __slots__ = ()

    def feed(self, data: bytes) -> None:
        pass

    def result(self) -> Usage:
        return Usage()


class _Events:
    """Usage in a ``text/event-stream`` body."""

    __slots__ = ("_of_event", "_scanner", "_usage")

    def __init__(self, dialect: Dialect) -> None:
        self._of_event = dialect.of_event
        self._scanner = SseScanner(wanted=dialect.wanted, dull=dialect.dull)
        self._usage = Usage()

    def feed(self, data: bytes) -> None:
        for event in self._scanner.feed(data):
            self._usage = merge(self._usage, self._block(event))

    def result(self) -> Usage:
        events, unfinished = self._scanner.snapshot()
        usage = merge(self._usage, self._block(unfinished)) if unfinished else self._usage
        return usage._replace(events=events)

    def _block(self, event: bytes) -> Block | None:
        document = _object(event)
        return self._of_event(document) if document is not None else None


class _Document:
    """Usage in one JSON document."""

    __slots__ = ("_chunks", "_closed", "_cut", "_held", "_member", "_of_body", "_usage")

    def __init__(self, dialect: Dialect) -> None:
        self._of_body = dialect.of_body
        self._member = dialect.member
        self._chunks: list[bytes] = []
        self._held = 0
        self._closed = False
        self._cut = False
        self._usage: Usage | None = None

    def feed(self, data: bytes) -> None:
        text = data.rstrip()
        if text:
            self._closed = text.endswith(b"}")
        self._usage = None
        self._chunks.append(data)
        self._held += len(data)
        if self._held > MAX_JSON_BYTES:
            tail = self._joined()[-TAIL_BYTES:]
            self._chunks = [tail]
            self._held = len(tail)
            self._cut = True

    def result(self) -> Usage:
        if self._usage is None:
            self._usage = self._read()
        return self._usage

    def _read(self) -> Usage:
        # The document cannot be complete without its closing brace: asking after each chunk stays cheap.
        if not self._closed:
            return Usage()
        for document in self._documents(self._joined()):
            if self._member in document:
                return merge(Usage(), self._of_body(document))
        return Usage()

    def _documents(self, body: bytes) -> Iterator[dict[str, object]]:
        """Ever larger parts of the top-level object, the cheapest first."""
        key = f'"{self._member}"'.encode()
        if self._cut or len(body) > TAIL_BYTES:
            yield from _endings(body[-TAIL_BYTES:], key)
        if not self._cut and key in body:
            document = _object(body)
            if document is not None:
                yield document

    def _joined(self) -> bytes:
        if len(self._chunks) > 1:
            self._chunks = [b"".join(self._chunks)]
        return self._chunks[0]


def usage_reader(dialect: Dialect, head: ResponseHead) -> UsageReader | NoUsage:
    """Reader of a JSON or event body in this dialect; one that finds nothing in bodies that cannot be read."""
    return NoUsage() if _unreadable(head) else UsageReader(dialect, head)


def openai_usage(head: ResponseHead) -> UsageReader | NoUsage:
    """Reader of chat completions, completions, embeddings and responses."""
    return usage_reader(OPENAI, head)


def anthropic_usage(head: ResponseHead) -> UsageReader | NoUsage:
    """Reader of messages."""
    return usage_reader(_ANTHROPIC, head)


def _unreadable(head: ResponseHead) -> bool:
    return is_encoded(head) or media_type(head).startswith("application/grpc")


def _endings(tail: bytes, key: bytes) -> Iterator[dict[str, object]]:
    """The last members of the object that ``tail`` ends, beginning with ``key``.

    Members that form an object together with the last brace of a document are members of its top level.
    """
    end = len(tail)
    for _ in range(_MAX_TRIES):
        end = tail.rfind(key, 0, end)
        if end < 0:
            return
        document = _object(b"{" + tail[end:])
        if document is not None:
            yield document


def _object(data: bytes) -> dict[str, object] | None:
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) else None


def merge(known: Usage, block: Block | None) -> Usage:
    """``known`` with what ``block`` says: counts that are not 0 replace those before, so do cached tokens that are given."""
    if block is None:
        return known
    prompt = block.prompt_tokens or known.prompt_tokens
    completion = block.completion_tokens or known.completion_tokens
    complete = block.prompt_tokens and block.completion_tokens and block.total_tokens
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=block.total_tokens if complete else prompt + completion,
        cached_tokens=known.cached_tokens if block.cached_tokens is None else block.cached_tokens,
        found=True,
    )


def _openai_body(document: dict[str, object]) -> Block | None:
    return _openai_block(document.get("usage"))


def _openai_event(document: dict[str, object]) -> Block | None:
    kind = document.get("type")
    if not isinstance(kind, str) or not kind.startswith("response."):
        return _openai_block(document.get("usage"))
    response = document.get("response")
    if kind not in _RESPONSE_ENDS or not isinstance(response, dict):
        return None
    return _openai_block(response.get("usage"))


_RESPONSE_ENDS = frozenset({"response.completed", "response.incomplete", "response.failed"})


def _openai_block(usage: object) -> Block | None:
    if not isinstance(usage, dict):
        return None
    cached: int | None = None
    for details in (usage.get("prompt_tokens_details"), usage.get("input_tokens_details")):
        if isinstance(details, dict) and details.get("cached_tokens") is not None:
            cached = number(details["cached_tokens"])
    return Block(
        prompt_tokens=_first(usage, "prompt_tokens", "input_tokens"),
        completion_tokens=_first(usage, "completion_tokens", "output_tokens"),
        total_tokens=number(usage.get("total_tokens")),
        cached_tokens=cached,
    )


def _anthropic_body(document: dict[str, object]) -> Block | None:
    return _anthropic_block(document.get("usage"))


def _anthropic_event(document: dict[str, object]) -> Block | None:
    match document.get("type"):
        case "message_start":
            message = document.get("message")
            block = _anthropic_block(message.get("usage")) if isinstance(message, dict) else None
            # The count of the first event is a placeholder; the real one is in message_delta.
            return block._replace(completion_tokens=0) if block is not None else None
        case "message_delta":
            return _anthropic_block(document.get("usage"))
        case _:
            return None


def _anthropic_block(usage: object) -> Block | None:
    if not isinstance(usage, dict):
        return None
    cached = usage.get("cache_read_input_tokens")
    return Block(
        prompt_tokens=number(usage.get("input_tokens")),
        completion_tokens=number(usage.get("output_tokens")),
        total_tokens=0,
        cached_tokens=None if cached is None else number(cached),
    )


def _first(usage: dict[str, object], *names: str) -> int:
    """The first of these members that is there and not null."""
    return next((number(usage[name]) for name in names if usage.get(name) is not None), 0)


def number(value: object) -> int:
    """A token count from what servers write: a number or a numeric string, else 0; never negative."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return 0
    try:
        return max(0, value if isinstance(value, int) else int(float(value)))
    except (ValueError, OverflowError):
        return 0


OPENAI = Dialect(of_body=_openai_body, of_event=_openai_event)
_ANTHROPIC = Dialect(of_body=_anthropic_body, of_event=_anthropic_event)
