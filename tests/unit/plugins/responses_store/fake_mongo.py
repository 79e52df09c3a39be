"""A stand-in for MongoDB that speaks its wire protocol: a handful of commands on documents in a dictionary.

No server of MongoDB can be installed here, so the real client (pymongo) is tested against this one. It knows what the store
uses: upserts by ``replaceOne``, deletes and reads by ``_id``, and remembers the index that it is asked for; it never expires
anything by itself.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import bson

_OP_REPLY, _OP_QUERY, _OP_MSG = 1, 2004, 2013
Document = dict[str, Any]


class FakeMongo:
    """The server, as an async context manager."""

    def __init__(self) -> None:
        self.documents: dict[str, Document] = {}
        self.written: list[str] = []
        """Ids, in the order of writes."""
        self.indexes: list[Document] = []
        self.fails = False
        """Every command but the handshake is answered with an error."""
        self.refused: set[str] = set()
        """Commands that were answered so."""
        self.changed = asyncio.Event()
        """Set by every command."""
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def uri(self) -> str:
        assert self._server is not None
        return f"mongodb://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def until(self, *keys: str) -> None:
        """Wait until exactly these documents are here."""
        while set(self.documents) != set(keys):
            self.changed.clear()
            await self.changed.wait()

    async def until_refused(self, command: str) -> None:
        """Wait until this command was refused."""
        while command not in self.refused:
            self.changed.clear()
            await self.changed.wait()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                size, request_id, _, operation = struct.unpack("<4i", await reader.readexactly(16))
                body = await reader.readexactly(size - 16)
                if operation == _OP_QUERY:
                    name_end = body.index(b"\0", 4)
                    answer = self._run(bson.decode(body[name_end + 9 :]))
                    payload = struct.pack("<iqii", 0, 0, 0, 1) + bson.encode(answer)
                    kind = _OP_REPLY
                else:
                    payload = struct.pack("<IB", 0, 0) + bson.encode(self._run(_command(body)))
                    kind = _OP_MSG
                writer.write(struct.pack("<4i", len(payload) + 16, 0, request_id, kind) + payload)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    def _run(self, command: Document) -> Document:
        name = next(iter(command))
        if name.lower() in ("hello", "ismaster"):
            return {
                "ismaster": True, "isWritablePrimary": True, "helloOk": True, "maxBsonObjectSize": 16 << 20,
                "maxMessageSizeBytes": 48_000_000, "maxWriteBatchSize": 100_000, "minWireVersion": 0, "maxWireVersion": 21,
                "localTime": datetime.now(UTC), "readOnly": False, "ok": 1.0,
            }  # fmt: skip
        if self.fails:
            self.refused.add(name)
            self.changed.set()
            return {"ok": 0.0, "errmsg": "out of order", "code": 96, "codeName": "OperationFailed"}
        handler = getattr(self, f"_{name}", None)
        answer: Document = handler(command) if handler is not None else {}
        self.changed.set()
        return {**answer, "ok": 1.0}

    def _createIndexes(self, command: Document) -> Document:  # noqa: N802 — the command's name
        self.indexes += command["indexes"]
        return {}

    def _find(self, command: Document) -> Document:
        query = command["filter"]
        found = self.documents.get(query["_id"])
        limit = query["expireAt"]["$gt"].replace(tzinfo=None)
        batch = [found] if found is not None and found["expireAt"].replace(tzinfo=None) > limit else []
        return {"cursor": {"id": 0, "ns": f"{command['$db']}.{command['find']}", "firstBatch": batch}}

    def _update(self, command: Document) -> Document:
        for change in command["updates"]:
            assert change["upsert"]
            self.documents[change["q"]["_id"]] = change["u"]
            self.written.append(change["q"]["_id"])
        return {"n": len(command["updates"]), "nModified": 0}

    def _delete(self, command: Document) -> Document:
        gone = [self.documents.pop(change["q"]["_id"], None) for change in command["deletes"]]
        return {"n": sum(document is not None for document in gone)}


def _command(body: bytes) -> Document:
    """The command of an OP_MSG: its document, with its sequences of documents as members."""
    command: Document = {}
    more: Document = {}
    position = 4
    while position < len(body):
        kind = body[position]
        (size,) = struct.unpack_from("<i", body, position + 1)
        section = body[position + 1 : position + 1 + size]
        if kind == 0:
            command = bson.decode(section)
        else:
            end = section.index(b"\0", 4)
            more[section[4:end].decode()] = list(_documents(section[end + 1 :]))
        position += 1 + size
    return {**command, **more}


def _documents(data: bytes) -> Iterator[Document]:
    while data:
        (size,) = struct.unpack_from("<i", data)
        yield bson.decode(data[:size])
        data = data[size:]
