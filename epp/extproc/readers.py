"""Readers of bodies, by name: what a ``Plan`` may ask for of a response, and ``Settings`` of every request.

A reader is pure and incremental: made with the headers, fed every chunk while that is forwarded, asked at the end
(or in between). It never raises, never changes the body and takes bounded memory. A transport may replace a reader by a
faster twin with the same results.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from epp.extproc.blocks import prompt_blocks_reader
from epp.extproc.document import openai_response
from epp.extproc.rename import Renamer, make_renamer
from epp.extproc.usage import anthropic_usage, openai_usage
from epp.extproc.usage_grpc import vertexai_usage, vllm_embed_usage, vllm_generate_usage
from epp.extproc.usage_sglang import sglang_usage
from epp.framework.types import Usage
from epp.seam import ResponseHead

__all__ = ["MAX_COPY_BYTES", "READERS", "REQUEST_READERS", "BodyCopy", "Reader", "Renamer", "Usage", "make_renamer"]

MAX_COPY_BYTES = 1024 * 1024
"""How much of a body ``copy`` keeps: its readers look at error texts and small documents."""


class Reader(Protocol):
    """Reads one body."""

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body; may be empty."""
        ...

    def result(self) -> object:
        """What is known so far, as if the body ended here; may be asked at any time."""
        ...


class BodyCopy(NamedTuple):
    """The beginning of a body."""

    data: bytes
    truncated: bool
    """The body is longer than ``MAX_COPY_BYTES``."""


class CopyReader:
    """Keeps the beginning of a body."""

    __slots__ = ("_chunks", "_held", "_limit", "_truncated")

    def __init__(self, limit_bytes: int = MAX_COPY_BYTES) -> None:
        self._limit = limit_bytes
        self._chunks: list[bytes] = []
        self._held = 0
        self._truncated = False

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body."""
        room = self._limit - self._held
        if len(data) > room:
            self._truncated = True
            data = data[:room]
        if data:
            self._chunks.append(data)
            self._held += len(data)

    def result(self) -> BodyCopy:
        """What has been kept so far."""
        if len(self._chunks) > 1:
            self._chunks = [b"".join(self._chunks)]
        return BodyCopy(self._chunks[0] if self._chunks else b"", self._truncated)


def _copy(_head: ResponseHead) -> CopyReader:
    return CopyReader()


READERS: Mapping[str, Callable[[ResponseHead], Reader]] = {
    "anthropic-usage": anthropic_usage,
    "copy": _copy,
    "openai-response": openai_response,
    "openai-usage": openai_usage,
    "sglang-usage": sglang_usage,
    "vertexai-usage": vertexai_usage,
    "vllm-grpc-embed-usage": vllm_embed_usage,
    "vllm-grpc-usage": vllm_generate_usage,
}
"""Of responses, by the names that ``Plan.readers`` uses. The usage readers' result is ``Usage``, that of ``copy`` is
``BodyCopy``, that of ``openai-response`` bytes or None."""


class RequestReaders(dict[str, Callable[[ResponseHead], Reader]]):
    """Readers of requests by name; a name may go on with numbers that its reader takes: ``prompt-blocks/64/256``.

    Args:
        plain: readers by name.
        numbered: name → (how many numbers it takes, each 0 or more, what makes the reader of them).
    """

    def __init__(
        self,
        plain: Mapping[str, Callable[[ResponseHead], Reader]],
        numbered: Mapping[str, tuple[int, Callable[..., Callable[[ResponseHead], Reader]]]],
    ) -> None:
        super().__init__(plain)
        self._numbered = numbered

    def __missing__(self, name: str) -> Callable[[ResponseHead], Reader]:
        stem, *numbers = name.split("/")
        count, make = self._numbered.get(stem, (0, None))
        if make is None or len(numbers) != count or not all(number.isascii() and number.isdigit() for number in numbers):
            raise KeyError(name)
        return make(*map(int, numbers))

    def knows(self, name: str) -> bool:
        """There is a reader of this name."""
        try:
            self[name]
        except (KeyError, ValueError):
            return False
        return True

    @property
    def stems(self) -> frozenset[str]:
        """All names without numbers."""
        return frozenset(self) | self._numbered.keys()

    def forms(self) -> list[str]:
        """How readers are named, for messages."""
        return sorted([*self, *(stem + "/<n>" * count for stem, (count, _) in self._numbered.items())])


REQUEST_READERS = RequestReaders({"copy": _copy}, {"prompt-blocks": (2, prompt_blocks_reader)})
"""Of requests, by the names that ``Settings.request_readers`` uses; made with the request's head, whose status is 0. They are
fed while the body arrives, by the native transport off the event loop if they have a twin; one that only Python has then reads
the whole body at its end. What was fed of a body that is too large or does not end is known too.

``prompt-blocks/<bytes of a block>/<most blocks of a prompt, 0 = all>`` gives the packed form of ``framework.prompt_blocks``;
b"" of what is no JSON object."""
