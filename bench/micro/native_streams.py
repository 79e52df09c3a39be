"""How much memory an open stream costs a picker, with tens of thousands of them over a few connections.

Run: ``python -m bench.micro.native_streams [--streams 40000] [--connections 4] [--transport native]``. Streams go straight to
``epp serve``, without Envoy: first all of them are routed and wait for their response, then each is in the middle of a streamed
one, then all end. Resident memory of the picker is read at each step and divided by the streams; how many are open at once is
the picker's own count, which must be all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import struct
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from envoy.service.ext_proc.v3 import external_processor_pb2 as pb

from bench.calibration import calibrate
from epp.demo.picker import PickerProcess

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_MAX_WINDOW = 2**31 - 1
_OPEN = "llm_d_epp_extproc_streams_inflight "
_BATCH = 500
"""Streams begun at a time on a connection, so that both sides keep up."""


class Connection:
    """An HTTP/2 connection that can just do this: many streams, small messages, answers only counted."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._changed = asyncio.Event()
        self.messages_bytes = 0
        self.ended = 0
        self.failure = ""
        writer.write(_PREFACE + _frame(_SETTINGS, 0, 0) + _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", _MAX_WINDOW - 65_535)))
        self._reading = asyncio.create_task(self._read())

    async def send(self, frames: Sequence[bytes]) -> None:
        """Write frames."""
        self._writer.write(b"".join(frames))
        await self._writer.drain()

    async def until_received(self, messages_bytes: int) -> None:
        """Wait until so many bytes of answers have come in all; no stream may end before."""
        while self.messages_bytes < messages_bytes:
            if self.ended:
                raise ConnectionError(f"the picker has ended {self.ended} streams")
            await self._until_changed()

    async def until_ended(self, count: int) -> None:
        """Wait until so many streams were ended by the picker."""
        while self.ended < count:
            await self._until_changed()

    def close(self) -> None:
        """Let go."""
        self._reading.cancel()
        self._writer.transport.abort()

    async def _until_changed(self) -> None:
        self._changed.clear()
        await self._changed.wait()
        if self.failure:
            raise ConnectionError(self.failure)

    async def _read(self) -> None:
        while True:
            head = await self._reader.readexactly(9)
            length, kind, flags = int.from_bytes(head[:3]), head[3], head[4]
            payload = await self._reader.readexactly(length)
            if kind == _DATA:
                self.messages_bytes += length
            elif kind == _HEADERS and flags & _END_STREAM:
                self.ended += 1
            elif kind in (_SETTINGS, _PING) and not flags & _ACK:
                self._writer.write(_frame(kind, _ACK, 0, payload if kind == _PING else b""))
            elif kind == _GOAWAY or (kind == _RESET and any(payload)):
                self.failure = f"the picker sent {'GOAWAY' if kind == _GOAWAY else 'RST_STREAM'}: {payload!r}"
            self._changed.set()


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def _message(message: pb.ProcessingRequest) -> bytes:
    data: bytes = message.SerializeToString()
    return b"\0" + len(data).to_bytes(4) + data


def _literal(name: str, value: str) -> bytes:
    """A header field that no table remembers."""
    return b"\0" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode()


_CALL = b"".join(
    _literal(name, value)
    for name, value in (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/envoy.service.ext_proc.v3.ExternalProcessor/Process"),
        (":authority", "epp"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    )
)


def _request() -> bytes:
    """Headers and body of a chat completion in full duplex."""
    opening = pb.ProcessingRequest()
    opening.protocol_config.request_body_mode = opening.protocol_config.response_body_mode = 4
    _add(opening.request_headers, {":method": "POST", ":path": "/v1/chat/completions", "content-type": "application/json"})
    _add(opening.request_headers, {f"x-header-{number}": "some value of usual length" for number in range(10)})
    body = pb.ProcessingRequest()
    body.request_body.body = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"%s"}]}' % (b"word " * 100)
    body.request_body.end_of_stream = True
    return _message(opening) + _message(body)


def _response() -> bytes:
    """The response's headers and a first event."""
    head, event = pb.ProcessingRequest(), pb.ProcessingRequest()
    _add(head.response_headers, {":status": "200", "content-type": "text/event-stream"})
    event.response_body.body = b'data: {"choices":[{"delta":{"content":"word"}}]}\n\n'
    return _message(head) + _message(event)


def _last() -> bytes:
    message = pb.ProcessingRequest()
    message.response_body.end_of_stream = True
    return _message(message)


def _add(part: pb.HttpHeaders, pairs: dict[str, str]) -> None:
    for name, value in pairs.items():
        part.headers.headers.add(key=name, raw_value=value.encode())


def resident_bytes(pid: int) -> int:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096


async def open_streams(metrics_port: int) -> int:
    """How many streams the picker says are open now."""

    def read() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=10) as response:
            text: str = response.read().decode()
            return text

    lines = (await asyncio.to_thread(read)).splitlines()
    return next(int(float(line.removeprefix(_OPEN))) for line in lines if line.startswith(_OPEN))


async def _exchange(connections: Sequence[Connection], streams: int, payload: bytes, *, opens: bool = False) -> None:
    """Send the payload on each stream; return once every stream was answered."""
    numbers = [2 * number + 1 for number in range(streams // len(connections))]

    async def one(connection: Connection) -> None:
        answer_bytes = 0
        # The first stream says how long the answers of the others are.
        for batch in (numbers[:1], *(numbers[start : start + _BATCH] for start in range(1, len(numbers), _BATCH))):
            before = connection.messages_bytes
            calls = [_frame(_HEADERS, _END_HEADERS, number, _CALL) for number in batch] if opens else []
            await connection.send([*calls, *(_frame(_DATA, 0, number, payload) for number in batch)])
            if not answer_bytes:
                await connection.until_received(before + 1)
                await asyncio.sleep(0.5)
                answer_bytes = connection.messages_bytes - before
            await connection.until_received(before + answer_bytes * len(batch))

    await asyncio.gather(*(one(connection) for connection in connections))


async def measure(streams: int, connections: int, transport: str) -> list[str]:
    """Run it; returns lines to print."""
    flags = [
        "--endpoint=127.0.0.1:9",
        "--secure-serving=false",
        f"--transport={transport}",
        "--v=0",
        "--enable-grpc-stream-metrics",
    ]
    async with PickerProcess(flags) as picker:
        pid = picker.process.pid
        opened = [Connection(*await asyncio.open_connection("127.0.0.1", picker.grpc_port)) for _ in range(connections)]
        idle = resident_bytes(pid)
        lines = [f"{'idle':12} {idle / 2**20:8.1f} MiB"]
        for name, payload, opens in (("routed", _request(), True), ("responding", _response(), False)):
            began = time.perf_counter()
            await _exchange(opened, streams, payload, opens=opens)
            spent = time.perf_counter() - began
            resident = resident_bytes(pid)
            per_stream = (resident - idle) / streams
            lines.append(f"{name:12} {resident / 2**20:8.1f} MiB, {per_stream:6.0f} bytes per stream, after {spent:.1f} s")
            found = await open_streams(picker.metrics_port)
            if found != streams:
                raise RuntimeError(f"{found} streams are open instead of {streams}")
            lines[-1] += f", {found} open at once"
        for connection in opened:
            numbers = range(1, 2 * (streams // connections), 2)
            await connection.send([_frame(_DATA, 0, number, _last()) for number in numbers])
            await connection.until_ended(len(numbers))
        await asyncio.sleep(1)
        left = await open_streams(picker.metrics_port)
        lines.append(f"{'all ended':12} {resident_bytes(pid) / 2**20:8.1f} MiB, {left} open")
        for connection in opened:
            connection.close()
    return lines


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=40_000)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--transport", choices=("native", "grpcio"), default="native")
    args = parser.parse_args()
    args.streams -= args.streams % args.connections  # as many on each
    print(f"calibration {calibrate():.1f} ns")
    print(f"{args.streams} streams over {args.connections} connections, transport {args.transport}")
    for line in asyncio.run(measure(args.streams, args.connections, args.transport)):
        print(line)


if __name__ == "__main__":
    main()
