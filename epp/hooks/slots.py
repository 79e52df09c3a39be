"""Plugins in their slots: which hooks a configuration has, each with its watched method."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from epp.framework.candidates import Candidates
from epp.framework.direct import DirectResponder
from epp.framework.interfaces import (
    Admitter,
    DataProducer,
    PreRequest,
    RequestHeaderProcessor,
    ResponseComplete,
    ResponseReceived,
    ResponseStreaming,
    Role,
    Screener,
    SetsDeadline,
)
from epp.framework.rewriting import BodyRewriter
from epp.framework.types import EndpointId, InferenceRequest
from epp.plugin_calls.guard import Guard
from epp.plugin_calls.step import CallWatch

T = TypeVar("T")

METHODS: Mapping[Role, str] = {
    Role.DIRECT_RESPONDER: "respond",
    Role.REQUEST_HEADER: "process_request",
    Role.BODY_REWRITER: "rewrite",
    Role.SCREENER: "screen",
    Role.DATA_PRODUCER: "produce",
    Role.ADMITTER: "admit",
    Role.PRE_REQUEST: "pre_request",
    Role.RESPONSE_RECEIVED: "response_received",
    Role.RESPONSE_STREAMING: "response_streaming",
    Role.RESPONSE_COMPLETE: "response_complete",
}
"""The method of each hook."""

_MAY_WAIT = frozenset({Role.DIRECT_RESPONDER, Role.BODY_REWRITER, Role.DATA_PRODUCER, Role.ADMITTER, Role.PRE_REQUEST})
"""The decision waits for these."""
_OWN_DEADLINE = frozenset({Role.DIRECT_RESPONDER, Role.BODY_REWRITER})
"""These read stores and services whose deadlines are their own; that of the whole decision holds for them."""


@dataclass(frozen=True, slots=True)
class Hook(Generic[T]):
    """A plugin in one of its slots."""

    watch: CallWatch
    plugin: T
    call: Callable[..., Any]
    """The hook's method, watched. Its first argument is the record; where the decision may wait for it, the second one is the
    request's ``MayWait``, and it is a coroutine function. A screener's gives the ids that it keeps."""
    is_async: bool
    """The plugin's method is a coroutine function."""
    needs: frozenset[str] = frozenset()
    """Of a data producer: names of those without whose data it can do nothing."""

    @property
    def name(self) -> str:
        """The plugin's."""
        return self.watch.name

    @property
    def guard(self) -> Guard:
        """Says whether it is left out."""
        return self.watch.guard


def make_hook(watch: CallWatch, plugin: T, needs: frozenset[str] = frozenset()) -> Hook[T]:
    """``plugin`` in the slot of the watch's role."""
    method = _checked(watch.role, getattr(plugin, METHODS[watch.role]))
    is_async = inspect.iscoroutinefunction(method)
    if watch.role in _MAY_WAIT or is_async:
        call: Callable[..., Any] = watch.waiting(
            method, has_deadline=watch.role not in _OWN_DEADLINE, deadline_s=deadline_s(plugin)
        )
    else:
        call = watch.plain(method)
    return Hook(watch, plugin, call, is_async, needs)


def _checked(role: Role, method: Callable[..., Any]) -> Callable[..., Any]:
    """``method``, with a wrong result counted as its own failure."""
    if role is not Role.SCREENER:
        return method

    def screen(request: InferenceRequest, candidates: Candidates) -> set[EndpointId]:
        return {endpoint.id for endpoint in method(request, candidates)}

    return screen


def has_hook(plugin: object, role: Role) -> bool:
    """The plugin has a method for this hook; one whose parameters leave it nothing to do there has none."""
    return hasattr(plugin, METHODS[role])


def deadline_s(plugin: object) -> float | None:
    """The deadline that a plugin has set itself; None = that of all."""
    return plugin.deadline_s if isinstance(plugin, SetsDeadline) else None


def is_async(plugin: object, role: Role) -> bool:
    """The plugin's method for this hook is a coroutine function."""
    return inspect.iscoroutinefunction(getattr(plugin, METHODS[role]))


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
    """Plain functions before coroutine functions, otherwise in declaration order: what a decision reserves is reserved before
    anything waits, so that the next decision sees it."""
    received: Sequence[Hook[ResponseReceived]] = ()
    streaming: Sequence[Hook[ResponseStreaming]] = ()
    complete: Sequence[Hook[ResponseComplete]] = ()
    every_chunk: bool = False
    """A streaming hook reads every chunk; otherwise the first one is told."""
    reads_document: bool = False
    """A plugin reads the whole response as one document."""
