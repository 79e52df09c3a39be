"""One ext_proc stream over ``grpc.aio``: moves bytes between the wire and a session.

The common case runs in one task, the one that grpc made for the stream: read, feed, write. Answers and deadlines that come
while it reads are written by a task of their own; to end a stream that is being read, its reading is cancelled.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from grpc import aio

from epp.extproc.driver import Session
from epp.extproc.machine import Machine
from epp.extproc.messages import Close, Lost, Status
from epp.seam import RequestHandler
from epp.transport import grpc_codec
from epp.transport.grpc_codec import Encoder

Context = aio.ServicerContext[bytes, bytes]


class GrpcStream:
    """Serves one stream.

    Args:
        machine: its state.
        handler: decides.
        encoder: serializes answers.
        context: the stream as grpc gives it.
    """

    __slots__ = ("_context", "_encode", "_interrupted", "_late", "_reading", "_session", "_task", "_writing", "began_s")

    def __init__(self, machine: Machine, handler: RequestHandler, encoder: Encoder, context: Context) -> None:
        self.began_s = time.monotonic()
        self._session = Session(machine, handler, self._wake, time.monotonic)
        self._encode = encoder.encode
        self._context = context
        self._task: asyncio.Task[Any] | None = None
        self._late: asyncio.Task[None] | None = None
        self._reading = False
        self._writing = False
        self._interrupted = False

    async def serve(self) -> Close | None:
        """Serve the stream until nothing is left to be sent.

        Returns:
            How to close it, or None if the data plane has abandoned it.
        """
        self._task = asyncio.current_task()
        try:
            await self._exchange()
            if self._late is not None:
                await self._late
            return self._session.closing
        except asyncio.CancelledError:
            if not self._interrupted:
                self._abandoned(Lost.CANCELLED)
                return None
            if self._task is not None:
                self._task.uncancel()
            return self._session.closing
        except aio.BaseError:
            self._abandoned(Lost.SEND_FAILED)
            return None
        finally:
            self._session.retire()
            self._task = None

    def tick(self, now: float) -> None:
        """Look after the deadline."""
        deadline_s = self._session.deadline_s
        if deadline_s is not None and now >= deadline_s:
            self._session.tick(now)
            self._push()

    def abort(self, status: Status, why: str) -> None:
        """End the stream with an error, now, whatever it is doing."""
        self._session.outbox.clear()
        self._session.abort(status, why, time.monotonic())
        self._interrupt()

    async def _exchange(self) -> None:
        session, read = self._session, self._context.read
        incoming, parse, clock = grpc_codec.incoming, grpc_codec.parse, time.monotonic
        first = True
        while session.closing is None:
            self._reading = True
            data: object = await read()
            self._reading = False
            if not isinstance(data, bytes):  # aio.EOF
                await self._half_closed()
                return
            message = parse(data)
            now = clock()
            if first:
                session.open(grpc_codec.opening(message))
                first = False
            session.feed(incoming(message), now)
            if session.outbox:
                await self._flush()

    async def _half_closed(self) -> None:
        """Nothing can be read any more; an answer may still be due."""
        session = self._session
        session.feed(Lost.HALF_CLOSED, time.monotonic())
        await self._flush()
        if session.closing is None:
            self._reading = True
            await asyncio.get_running_loop().create_future()

    async def _flush(self) -> None:
        """Send the outbox, unless somebody is at it."""
        session = self._session
        if session.told:
            # Runs when the first write has begun and waits: what is told does not delay what is sent.
            asyncio.get_running_loop().call_soon(session.tell)
        if self._writing:
            return
        outbox, write, encode = session.outbox, self._context.write, self._encode
        self._writing = True
        try:
            while outbox:
                await write(encode(outbox.popleft()))
        finally:
            self._writing = False

    def _wake(self) -> None:
        asyncio.get_running_loop().call_soon(self._resume)

    def _resume(self) -> None:
        self._session.resume(time.monotonic())
        self._push()

    def _push(self) -> None:
        """Something may have happened while the stream's own task waits: have it sent, or the stream ended."""
        session = self._session
        if session.told and self._writing:
            asyncio.get_running_loop().call_soon(session.tell)
        if self._writing:
            return
        if session.outbox:
            self._late = asyncio.get_running_loop().create_task(self._flush_late())
        elif session.closing is not None and self._reading:
            self._interrupt()

    async def _flush_late(self) -> None:
        session = self._session
        try:
            await self._flush()
        except aio.BaseError:
            self._abandoned(Lost.SEND_FAILED)
        if session.closing is not None and self._reading:
            self._interrupt()

    def _interrupt(self) -> None:
        if self._task is not None and not self._interrupted:
            self._interrupted = True
            self._task.cancel()

    def _abandoned(self, how: Lost) -> None:
        self._session.outbox.clear()
        self._session.feed(how, time.monotonic())
        self._session.tell()
