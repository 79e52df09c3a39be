"""A process that serves one transport and then does what processes should not: it forks, blocks, leaves without stopping.

Run: ``python -m tests.transport.process_server TRANSPORT MISCHIEF``. It prints its port; SIGTERM ends it, with a last line that
counts the calls. A blocked event loop goes on after a byte on standard input.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence

import uvloop

from epp.seam import (
    Chunk,
    Edits,
    HealthStatus,
    HealthTable,
    Metadata,
    Outcome,
    Port,
    Request,
    ResponseHead,
    Route,
    Settings,
    Stream,
)
from tests.transport.transports import TRANSPORTS

GRACE_S = 0.2


def spawn() -> None:
    """Start another program and wait for it."""
    subprocess.run(["true"], check=True)


def fork() -> None:
    """Fork without another program; the child does nothing of the transport's."""
    child = os.fork()
    if not child:
        os._exit(7)
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) != 7:
        raise RuntimeError(f"the child ended with {status}")


def leave_heir() -> None:
    """Start a program that inherits whatever is inheritable and outlives this process; it ends with its standard input."""
    subprocess.Popen(["cat"], close_fds=False)


def block() -> None:
    """Wait for a byte, as slow code does: other threads may run."""
    say("blocked")
    os.read(0, 1)


def block_all() -> None:
    """Wait for a byte and keep the interpreter's lock meanwhile: no other Python runs."""
    say("blocked")
    ctypes.PyDLL(None).read(0, ctypes.create_string_buffer(1), 1)


CHILDREN: dict[str, Callable[[], None]] = {"spawn": spawn, "fork": fork}
"""What an executor does before each answer."""
FIRST: dict[str, Callable[[], None]] = {"block": block, "block-all": block_all, "leave-heir": leave_heir}
"""What the first call does before it answers."""


class Handler:
    """Routes every request, after some mischief."""

    def __init__(self, mischief: str) -> None:
        self.requests = self.finished_calls = 0
        self._child = CHILDREN.get(mischief)
        self._first = FIRST.get(mischief)

    def request(self, stream: Stream, request: Request) -> None:
        self.requests += 1
        if self._first is not None and self.requests == 1:
            self._first()
        if self._child is None:
            stream.answer(ROUTE)
            return
        task = asyncio.get_running_loop().run_in_executor(None, self._child)
        task.add_done_callback(lambda done: None if done.exception() else stream.answer(ROUTE))

    def response_headers(self, stream: Stream, head: ResponseHead) -> Edits | None:
        return None

    def response_body(self, stream: Stream, chunks: Sequence[Chunk]) -> None:
        pass

    def finished(self, stream: Stream, outcome: Outcome) -> Metadata | None:
        self.finished_calls += 1
        return None


DESTINATION = "127.0.0.1:9"
ROUTE = Route(
    Edits((("x-gateway-destination-endpoint", DESTINATION),)),
    {"envoy.lb": {"x-gateway-destination-endpoint": DESTINATION}},
)


def say(word: object) -> None:
    """Tell the test."""
    sys.stdout.write(f"{json.dumps(word)}\n")
    sys.stdout.flush()


async def serve(name: str, mischief: str) -> None:
    """Serve until SIGTERM."""
    handler, transport, stop = Handler(mischief), TRANSPORTS[name](), asyncio.Event()
    transport.set_health(HealthTable({}, HealthStatus.SERVING))
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    [port] = await transport.start(handler, Settings(), [Port("127.0.0.1", 0, secure=False)])
    say(port)
    await stop.wait()
    if mischief == "leave":
        return
    stopping = asyncio.create_task(transport.stop(GRACE_S))
    if mischief == "block-stop":
        await asyncio.sleep(0)
        block_all()
    await stopping
    say({"requests": handler.requests, "finished": handler.finished_calls})


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], sys.argv[2]))
