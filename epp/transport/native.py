"""The fast transport: the wire in Rust threads, batches of calls on the event loop.

What arrives is decoded, collected, answered and counted by ``epp_native``; this module makes the calls of the handler and
gives its answers back, all of a pass in one go. The extension never runs Python and never takes the interpreter's lock
outside the calls made here.

Importing this module fails if the extension is not built; ``native/README.md`` says how to build it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from epp import seam
from epp.errors import UsageError
from epp.extproc import readers
from epp.framework import log
from epp.seam import HealthTable, Port, RequestHandler, Settings, TransportStats
from epp.telemetry.catalogue import HANDOVER_S, STREAM_S

try:
    import epp_native
except ImportError as error:
    raise ImportError(
        "the native transport is not built: build the extension epp_native (native/README.md), or use --transport grpcio"
    ) from error

_logger = log.get(__name__)

HOLD_BOUNDS_S = STREAM_S
"""Upper bounds of the buckets for how long streams lasted."""

HANDOVER_BOUNDS_S = HANDOVER_S
"""Upper bounds of the buckets for how long an event waits for the event loop."""

MAX_EVENTS = 256
"""Events of one pass, some 8 ms of decisions: timers and scrapes run between passes."""


def check_layout(layout: Mapping[str, Any]) -> None:
    """Compare what the extension reads by position and number with the definitions here.

    Args:
        layout: what ``epp_native.layout`` says.

    Raises:
        ImportError: they differ; the extension was built from other sources.
    """
    pairs: list[tuple[str, object, object]] = [
        (f"the fields of {name}", getattr(module, name)._fields, tuple(fields))
        for module, records in ((seam, layout["records"]), (readers, layout["results"]))
        for name, fields in records.items()
    ]
    pairs.append(("the numbers of Observe", tuple(member.name for member in seam.Observe), tuple(layout["observe"])))
    for table, known, names in (
        ("READERS", readers.READERS.keys(), layout["readers"]),
        ("REQUEST_READERS", readers.REQUEST_READERS.stems, layout["request_readers"]),
    ):
        pairs.append((f"the names in {table}", (), tuple(sorted(set(names) - known))))
    for what, here, there in pairs:
        if here != there:
            raise ImportError(
                f"the extension epp_native does not fit this version: {what} are {there} there and {here} here; "
                "build and install it again (native/README.md), or use --transport grpcio"
            )


if not hasattr(epp_native, "layout"):
    raise ImportError("the extension epp_native is of an older version: build and install it again (native/README.md)")
_LAYOUT = epp_native.layout()
check_layout(_LAYOUT)
_EVENTS = _LAYOUT["events"]
_REQUEST, _FINISHED, _STOPPED = _EVENTS["request"], _EVENTS["finished"], _EVENTS["stopped"]
_RESPONSE_HEADERS, _RESPONSE_BODY = _EVENTS["response_headers"], _EVENTS["response_body"]
_FINISHED_HELD = _EVENTS["finished_held"]


class NativeTransport:
    """Implements ``handler.Transport``.

    Args:
        io_threads: threads that move bytes.
    """

    def __init__(self, io_threads: int = 1) -> None:
        self._io_threads = io_threads
        self._bridge = epp_native.Bridge(time.monotonic(), self._give_soon, HOLD_BOUNDS_S, HANDOVER_BOUNDS_S)
        self._handler: RequestHandler | None = None
        self._settings = Settings()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running = 0
        self._stopping = False
        self._ended = asyncio.Event()

    async def start(self, handler: RequestHandler, settings: Settings, ports: Sequence[Port]) -> list[int]:
        """Listen on all ports and serve.

        Returns:
            The port numbers bound, in the order of ``ports``.

        Raises:
            UsageError: a port cannot be bound, or the TLS settings are not usable.
        """
        self._handler = handler
        self.configure(settings)
        for port in ports:
            if port.secure and settings.tls is None:
                raise UsageError([f"port {_address(port)} shall be secure, but there is no key pair"])
        self._loop = asyncio.get_running_loop()
        try:
            bound = self._bridge.start(ports, self._io_threads)
        except OSError as error:
            raise UsageError([f"cannot listen on {error.strerror or error}"]) from error
        self._running = self._io_threads
        self._loop.add_reader(self._bridge.fileno(), self._pass)
        return bound

    def configure(self, settings: Settings) -> None:
        """Use these settings for new streams and new connections.

        Raises:
            UsageError: the TLS settings cannot be used; nothing has changed.
        """
        try:
            self._bridge.configure(settings)
        except ValueError as error:
            raise UsageError([str(error)]) from error
        self._settings = settings

    def set_health(self, table: HealthTable) -> None:
        """Answer Check, List and Watch from this table."""
        self._bridge.set_health({name: int(status) for name, status in table.statuses.items()}, int(table.default))

    def stats(self) -> TransportStats:
        """Counts since the start."""
        return TransportStats(*self._bridge.stats())

    async def stop(self, grace_s: float | None) -> None:
        """GOAWAY, wait up to ``grace_s`` (None = for ever), then UNAVAILABLE. No call comes after it returns."""
        if self._loop is None:
            return
        self._stopping = True
        self._bridge.stop(grace_s)
        if self._running:
            await self._ended.wait()
        self._loop.remove_reader(self._bridge.fileno())
        self._bridge.join()
        self._loop = None

    # ── passes ──

    def _pass(self) -> None:
        """Make the calls that wait, then give all answers back."""
        bridge, handler = self._bridge, self._handler
        assert handler is not None
        try:
            for kind, stream, what in bridge.take(MAX_EVENTS):
                try:
                    if kind == _REQUEST:
                        handler.request(stream, what)
                    elif kind == _FINISHED:
                        handler.finished(stream, what)
                        stream.retire()
                    elif kind == _STOPPED:
                        self._thread_ended()
                    else:
                        self._rarely(handler, kind, stream, what)
                except Exception as error:  # noqa: BLE001 — told; the stream ends, the process does not
                    _logger.error("defect while serving a stream, aborting it", exc=error)
                    bridge.abort(stream)
        finally:
            bridge.give()

    def _rarely(self, handler: RequestHandler, kind: int, stream: epp_native.Stream, what: Any) -> None:
        """Calls that only some plans ask for."""
        bridge = self._bridge
        if kind == _RESPONSE_BODY:
            handler.response_body(stream, what)
        elif kind == _RESPONSE_HEADERS:
            # What the handler answers inside the call is carried out after its edits.
            said = bridge.said(stream)
            bridge.edited(stream, handler.response_headers(stream, what), said)
        else:
            assert kind == _FINISHED_HELD
            bridge.released(stream, handler.finished(stream, what))
            stream.retire()

    def _thread_ended(self) -> None:
        self._running -= 1
        if not self._stopping:
            _logger.error("an I/O thread has ended by itself; its connections are gone", left=self._running)
        if not self._running:
            self._ended.set()

    def _give_soon(self) -> None:
        """Something was answered outside a pass: all of this turn of the loop goes back at its end."""
        if self._loop is not None:
            self._loop.call_soon(self._bridge.give)


def _address(port: Port) -> str:
    return f"[{port.host}]:{port.port}" if ":" in port.host else f"{port.host}:{port.port}"
