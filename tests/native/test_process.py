"""A fork whose child ends as a Python program does, beside the I/O thread; other ends: tests/transport/test_process.py."""

from __future__ import annotations

import subprocess
import sys

_FORKS = """
import asyncio, os, sys
from epp.seam import Port
from epp.transport.native import NativeTransport
from tests.extproc.transcripts import SETTINGS, Recorder, Script
from tests.extproc.wire import Dispatcher

async def main():
    dispatcher = Dispatcher()
    dispatcher.recorder = Recorder(Script())
    transport = NativeTransport()
    [port] = await transport.start(dispatcher, SETTINGS, [Port("127.0.0.1", 0, secure=False)])
    child = os.fork()
    if child == 0:
        del transport
        sys.exit(7)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 7, status
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
    settings = await asyncio.wait_for(reader.readexactly(9), 10)
    assert settings[3] == 4, settings
    writer.close()
    await transport.stop(0)
    print("served")

asyncio.run(main())
"""


def test_a_forked_child_ends_and_the_parent_serves_on() -> None:
    done = subprocess.run([sys.executable, "-c", _FORKS], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "served", done.stderr
