"""Runs the native twins of readers beside the reference, and compares them at every step."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from epp.extproc.readers import READERS, Reader, Renamer, make_renamer
from epp.seam import Rename
from tests.unit.extproc.heads import PlainHead

WITH_TWIN = frozenset({"anthropic-usage", "copy", "openai-usage"}) if find_spec("epp_native") is not None else frozenset()
"""Readers that have a twin, if that is installed."""


class _Both:
    """A reader and its twin."""

    def __init__(self, reference: Any, twin: Any) -> None:
        self._reference = reference
        self._twin = twin

    def feed(self, data: bytes, *end: bool) -> Any:
        out = self._reference.feed(data, *end)
        assert self._twin.feed(data, *end) == out
        return out

    def result(self) -> object:
        result: object = self._reference.result()
        twin = self._twin.result()
        assert twin == result
        assert type(twin) is type(result)
        return result


def make_reader(name: str, response: PlainHead) -> Reader:
    """The reader, with its twin beside it where there is one."""
    reference = READERS[name](response)
    if name not in WITH_TWIN:
        return reference
    import epp_native

    return _Both(reference, epp_native.Reader(name, dict(response.headers.items())))


def make_both_renamers(response: PlainHead, rename: Rename) -> Renamer | None:
    """The renamer, with its twin beside it where that is installed."""
    reference = make_renamer(response, rename)
    if not WITH_TWIN:
        return reference
    import epp_native

    twin = epp_native.Renamer.make(rename, dict(response.headers.items()))
    assert (twin is None) == (reference is None)
    return None if reference is None else _Both(reference, twin)  # type: ignore[return-value]
