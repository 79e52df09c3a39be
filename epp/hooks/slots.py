"""Plugins in their slots: which hooks a configuration has, and what is measured and watched of each."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from epp.framework.direct import DirectResponder
from epp.framework.interfaces import (
    Admitter,
    DataProducer,
    PreRequest,
    RequestHeaderProcessor,
    ResponseComplete,
    ResponseReceived,
    ResponseStreaming,
    Screener,
)
from epp.framework.rewriting import BodyRewriter
from epp.plugin_calls.guard import UNGUARDED, Guard
from epp.scheduling.profile import Observe

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Hook(Generic[T]):
    """A plugin in one of its slots."""

    name: str
    type: str
    plugin: T
    observe: Observe
    is_async: bool = False
    guard: Guard = UNGUARDED
    needs: frozenset[str] = frozenset()
    """Of a data producer: names of those without whose data it can do nothing."""


def is_async(plugin: object, method: str) -> bool:
    """The method is a coroutine function."""
    return inspect.iscoroutinefunction(getattr(plugin, method))


@dataclass(frozen=True, slots=True)
class Hooks:
    """All hooks of a configuration, by slot, in declaration order."""

    responders: Sequence[Hook[DirectResponder]] = ()
    request_header: Sequence[Hook[RequestHeaderProcessor]] = ()
    rewriters: Sequence[Hook[BodyRewriter]] = ()
    screeners: Sequence[Hook[Screener]] = ()
    producers: Sequence[Hook[DataProducer]] = ()
    """In dependency order."""
    admitters: Sequence[Hook[Admitter]] = ()
    pre_request: Sequence[Hook[PreRequest]] = ()
    received: Sequence[Hook[ResponseReceived]] = ()
    streaming: Sequence[Hook[ResponseStreaming]] = ()
    complete: Sequence[Hook[ResponseComplete]] = ()
    every_chunk: bool = False
    """A streaming hook reads every chunk; otherwise the first one is told."""
    reads_document: bool = False
    """A plugin reads the whole response as one document."""
