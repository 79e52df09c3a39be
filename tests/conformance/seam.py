"""Watches the calls between transport and director."""

from __future__ import annotations

from collections.abc import Sequence

from epp.seam import Chunk, Edits, Metadata, Outcome, Request, RequestHandler, ResponseHead, Stream


class Seam:
    """Stands between transport and director, and notes the calls of each stream.

    Args:
        inner: who decides.
    """

    def __init__(self, inner: RequestHandler) -> None:
        self._inner = inner
        self.calls: dict[Stream, list[str]] = {}
        """In the order in which requests came."""

    def check(self) -> None:
        """Every stream that was asked about is finished: once, and last."""
        for calls in self.calls.values():
            assert calls[0] == "request", calls
            assert calls[-1] == "finished", calls
            assert calls.count("request") == calls.count("finished") == 1, calls
            assert calls.count("response_headers") <= 1, calls

    def request(self, stream: Stream, request: Request) -> None:
        self._note(stream, "request")
        self._inner.request(stream, request)

    def response_headers(self, stream: Stream, head: ResponseHead) -> Edits | None:
        self._note(stream, "response_headers")
        return self._inner.response_headers(stream, head)

    def response_body(self, stream: Stream, chunks: Sequence[Chunk]) -> None:
        self._note(stream, "response_body")
        self._inner.response_body(stream, chunks)

    def finished(self, stream: Stream, outcome: Outcome) -> Metadata | None:
        self._note(stream, "finished")
        return self._inner.finished(stream, outcome)

    def _note(self, stream: Stream, call: str) -> None:
        self.calls.setdefault(stream, []).append(call)
