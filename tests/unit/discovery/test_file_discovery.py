"""file-discovery: cases F1 to F16 of the datalayer contract."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from epp.datalayer.store import EndpointStore
from epp.errors import ConfigError
from epp.framework.interfaces import EndpointDiscovery
from epp.framework.testing import make_plugin
from epp.framework.types import EndpointChange, EndpointId
from plugins.discovery.endpoint_file import MAX_FILE_BYTES
from plugins.discovery.file import PLUGIN, FileDiscovery
from tests.unit.discovery.writing import WAYS, Write, in_place, remove, watch_begun, write_bytes

A = "endpoints: [{name: a, address: 10.0.0.1, port: 8000}]"
AB = "endpoints: [{name: a, address: 10.0.0.1, port: 8000}, {name: b, address: 10.0.0.2, port: '8000'}]"

_PROTOCOL: type[EndpointDiscovery] = FileDiscovery


class Watcher:
    """Waits until a store changed; counts removals."""

    def __init__(self, store: EndpointStore) -> None:
        self.changed = asyncio.Event()
        self.removed: list[str] = []
        store.subscribe(self)

    def endpoints_changed(self, change: EndpointChange) -> None:
        self.removed += [endpoint.name for endpoint in change.removed]
        self.changed.set()

    async def change(self) -> None:
        async with asyncio.timeout(5):
            await self.changed.wait()
        self.changed.clear()


@contextlib.asynccontextmanager
async def discovering(path: Path, *, watches: bool = False) -> AsyncIterator[tuple[FileDiscovery, EndpointStore]]:
    store = EndpointStore()
    discovery = make_plugin(PLUGIN, {"path": str(path), "watchFile": watches})
    task = asyncio.create_task(discovery.run(store))
    ready = asyncio.create_task(discovery.ready.wait())
    try:
        async with asyncio.timeout(5):
            await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
        yield discovery, store
    finally:
        ready.cancel()
        task.cancel()
        await asyncio.gather(task, ready, return_exceptions=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "endpoints.yaml"


async def read(path: Path, text: str) -> EndpointStore:
    in_place(path, text)
    async with discovering(path) as (_, store):
        return store


async def refusal(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        async with discovering(path):
            pass
    return [f"{f.line}:{f.path}: {f.message}" for f in caught.value.findings]


async def reloaded(path: Path, first: str, second: str) -> EndpointStore:
    in_place(path, first)
    async with discovering(path) as (discovery, store):
        in_place(path, second)
        discovery.reload()
        return store


def shown(store: EndpointStore) -> str:
    return " ".join(f"{e.name}@{e.host_port}" for e in store)


# ── the first reading ──


async def test_f1_two_entries_give_two_endpoints(path: Path) -> None:
    store = await read(path, AB)
    assert [e.id for e in store] == ["default/a", "default/b"]
    assert shown(store) == "a@10.0.0.1:8000 b@10.0.0.2:8000"


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        pytest.param({"port": 8000}, ("default/a", "10.0.0.1:8000"), id="F2 integer port"),
        pytest.param({"port": "8000"}, ("default/a", "10.0.0.1:8000"), id="F2 port in quotes"),
        pytest.param({"address": "2001:DB8:0::1"}, ("default/a", "[2001:db8::1]:8000"), id="IPv6, written shortest"),
        pytest.param({"namespace": "prod"}, ("prod/a", "10.0.0.1:8000"), id="namespace"),
        pytest.param({"namespace": None, "labels": None}, ("default/a", "10.0.0.1:8000"), id="null is as if left out"),
    ],
)
async def test_fields_of_an_entry(path: Path, entry: dict[str, Any], expected: tuple[str, str]) -> None:
    store = await read(path, json.dumps({"endpoints": [{"name": "a", "address": "10.0.0.1", "port": 8000} | entry]}))
    assert [(e.id, e.host_port) for e in store] == [expected]


async def test_labels_are_strings_as_they_are_written(path: Path) -> None:
    store = await read(
        path, A.replace("port: 8000", "port: 8000, labels: {role: decode, version: 1.10, gpu: true, n: 010, empty: }")
    )
    labels = store.snapshot().endpoints[0].labels
    assert labels == {"role": "decode", "version": "1.10", "gpu": "true", "n": "010", "empty": ""}


async def test_json_with_tabs(path: Path) -> None:
    store = await read(path, '{\n\t"endpoints": [\n\t\t{"name": "a", "address": "10.0.0.1", "port": 1}\n\t]\n}\n')
    assert shown(store) == "a@10.0.0.1:1"


@pytest.mark.parametrize("text", ["endpoints: []", "", "null", "endpoints:", "# nothing yet"])
async def test_a_pool_that_is_empty_so_far(path: Path, text: str) -> None:
    assert len(await read(path, text)) == 0


async def test_f8_of_a_doubled_id_the_last_entry_counts(path: Path) -> None:
    store = await read(path, AB.replace("name: b", "name: a"))
    assert shown(store) == "a@10.0.0.2:8000"


async def test_f4_a_missing_file_ends_the_start(path: Path) -> None:
    assert await refusal(path) == ["0:: the file cannot be read: No such file or directory"]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        pytest.param("address: 10.0.0.256, port: 1", "endpoints[1].address: address must be an IP address", id="F5 address"),
        pytest.param("address: vllm, port: 1", "endpoints[1].address: address must be an IP address", id="host name"),
        pytest.param("address: 'fe80::1%eth0', port: 1", "endpoints[1].address: address must be an IP address", id="scope"),
        pytest.param("port: 1", "endpoints[1].address: address must be an IP address", id="no address"),
        pytest.param(
            "address: 10.0.0.2, port: 0", "endpoints[1].port: port must be an integer from 1 to 65535", id="F6 port 0"
        ),
        pytest.param(
            "address: 10.0.0.2, port: 65536", "endpoints[1].port: port must be an integer from 1 to 65535", id="F6 large port"
        ),
        pytest.param(
            "address: 10.0.0.2, port: abc",
            "endpoints[1].port: port must be an integer from 1 to 65535",
            id="F6 port that is no number",
        ),
        pytest.param("address: 10.0.0.2, port: true", "endpoints[1].port: port must be an integer from 1 to 65535", id="bool"),
        pytest.param("address: 10.0.0.2", "endpoints[1].port: port must be an integer from 1 to 65535", id="no port"),
        pytest.param(
            "address: 10.0.0.2, port: 1, labels: {a: [1]}",
            "endpoints[1].labels: labels must be a mapping of strings",
            id="labels",
        ),
        pytest.param("address: 10.0.0.2, port: 1, prot: 2", "endpoints[1].prot: unknown key 'prot'", id="unknown key"),
    ],
)
async def test_a_wrong_entry_ends_the_start(path: Path, entry: str, message: str) -> None:
    in_place(path, f"endpoints:\n- {{name: a, address: 10.0.0.1, port: 8000}}\n- {{name: b, {entry}}}\n")
    assert await refusal(path) == [f"3:{message}"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("endpoints: [{address: 10.0.0.1, port: 1}]", "1:endpoints[0].name: name is missing", id="no name"),
        pytest.param(
            "endpoints: [{name: 7, address: 10.0.0.1, port: 1}]",
            "1:endpoints[0].name: name must be a string that is not empty",
            id="number as name",
        ),
        pytest.param("endpoints: [a]", "1:endpoints[0]: an endpoint must be a mapping", id="no mapping"),
        pytest.param("[]", "1:endpoints: the file must be a mapping with a list endpoints", id="list on top"),
        pytest.param("endpoints: {}", "1:endpoints: the file must be a mapping with a list endpoints", id="mapping"),
        pytest.param("endpoints: []\n---\nendpoints: []", "0:: the file has more than one document", id="documents"),
        pytest.param("endpoints: []\nendpoints: []", "2:: key 'endpoints' occurs twice", id="doubled key"),
        pytest.param("endpoints: [", "2:: while parsing a flow node: did not find expected node content", id="syntax"),
    ],
)
async def test_a_wrong_file_ends_the_start(path: Path, text: str, expected: str) -> None:
    in_place(path, text)
    assert await refusal(path) == [expected]


async def test_all_mistakes_are_told_at_once(path: Path) -> None:
    in_place(path, "endpoint: []\nendpoints:\n- {name: a, adress: 10.0.0.1, port: 0}\n")
    assert await refusal(path) == [
        "1:endpoint: unknown key 'endpoint'",
        "3:endpoints[0].adress: unknown key 'adress'",
        "3:endpoints[0].address: address must be an IP address",
        "3:endpoints[0].port: port must be an integer from 1 to 65535",
    ]


async def test_a_file_that_is_not_utf_8_ends_the_start(path: Path) -> None:
    write_bytes(path, b"endpoints: [\xff]")
    assert "the file is not UTF-8" in (await refusal(path))[0]


@pytest.mark.parametrize(
    ("size", "is_fine"), [(MAX_FILE_BYTES, True), (MAX_FILE_BYTES + 1, False)], ids=["F7 as large as allowed", "F7 a byte more"]
)
async def test_the_largest_file(path: Path, size: int, is_fine: bool) -> None:
    in_place(path, A + "\n" + "#" * (size - len(A) - 1))
    if is_fine:
        async with discovering(path) as (_, store):
            assert len(store) == 1
    else:
        assert await refusal(path) == ["0:: the file is larger than 1048576 bytes"]


@pytest.mark.parametrize("parameters", [{}, {"path": ""}, {"path": "a", "watch": True}], ids=["F3 no path", "empty", "unknown"])
def test_wrong_parameters(parameters: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        make_plugin(PLUGIN, parameters)


# ── later readings ──


async def test_f9_a_removed_entry_is_deleted(path: Path) -> None:
    assert shown(await reloaded(path, AB, A)) == "a@10.0.0.1:8000"


async def test_f13_an_empty_list_empties_the_pool(path: Path) -> None:
    assert shown(await reloaded(path, AB, "endpoints: []")) == ""


async def test_f10_a_changed_label_is_an_update(path: Path) -> None:
    in_place(path, A)
    async with discovering(path) as (discovery, store):
        watcher = Watcher(store)
        in_place(path, A.replace("port: 8000", "port: 8000, labels: {role: decode}"))
        discovery.reload()
        found = store.get(EndpointId("default/a"))
        assert found is not None
        assert found.labels == {"role": "decode"}
        assert watcher.removed == []


@pytest.mark.parametrize(
    "text",
    ["endpoints: [", "", "null", "endpoints:", "{}", "[]", "endpoints: 7", "\x00", "a: &a [*a]"],
    ids=[
        "F11 syntax",
        "F12 empty file",
        "null",
        "no list",
        "empty mapping",
        "list",
        "number",
        "control character",
        "endless alias",
    ],
)
async def test_a_file_that_cannot_be_used_changes_nothing(path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    assert shown(await reloaded(path, A, text)) == "a@10.0.0.1:8000"
    assert "endpoint file cannot be used, the endpoints stay" in [r.getMessage() for r in caplog.records]


async def test_a_file_that_vanished_changes_nothing(path: Path) -> None:
    in_place(path, A)
    async with discovering(path) as (discovery, store):
        remove(path)
        discovery.reload()
        assert shown(store) == "a@10.0.0.1:8000"


async def test_f16_an_entry_that_became_invalid_keeps_its_previous_version(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    later = AB.replace("10.0.0.1, port: 8000", "10.0.0.1, port: 0").replace("10.0.0.2", "10.0.0.9")
    assert shown(await reloaded(path, AB, later)) == "a@10.0.0.1:8000 b@10.0.0.9:8000"
    record = next(r for r in caplog.records if r.levelno == logging.ERROR)
    assert record.getMessage() == "endpoint file has an invalid entry, its previous version stays"
    assert (record.__dict__["fields"]["path"], record.__dict__["fields"]["line"]) == ("endpoints[0].port", 1)


async def test_a_new_entry_that_is_invalid_is_left_out(path: Path) -> None:
    assert shown(await reloaded(path, A, AB.replace("10.0.0.2", "nowhere"))) == "a@10.0.0.1:8000"


async def test_an_unknown_key_is_a_warning_later(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = await reloaded(path, A, A.replace("port: 8000", "port: 8001, wieght: 2"))
    assert shown(store) == "a@10.0.0.1:8001"
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING] == ["endpoint file has an unknown key"]


async def test_a_reload_before_the_first_reading_is_nothing(path: Path) -> None:
    FileDiscovery(str(path)).reload()


async def test_the_debug_state_has_ids_only(path: Path) -> None:
    entries = [{"name": f"e{i:03}", "address": "10.0.0.1", "port": 1 + i} for i in range(150)]
    in_place(path, json.dumps({"endpoints": entries}))
    async with discovering(path) as (discovery, _):
        state = discovery.debug_state()
    assert isinstance(state, dict)
    assert state["total"] == 150
    assert state["endpoints"] == [f"default/e{i:03}" for i in range(100)]


# ── watching ──


@pytest.mark.parametrize("write", WAYS)
async def test_f14_a_watched_file_is_followed(path: Path, write: Write) -> None:
    write(path, A)
    async with discovering(path, watches=True) as (_, store):
        watcher = Watcher(store)
        watcher.changed.clear()
        await watch_begun()
        for port in (8001, 8002):
            write(path, A.replace("8000", str(port)))
            await watcher.change()
            assert shown(store) == f"a@10.0.0.1:{port}"


async def test_f12_a_file_written_in_two_steps_loses_nothing(path: Path) -> None:
    in_place(path, A)
    async with discovering(path, watches=True) as (_, store):
        watcher = Watcher(store)
        watcher.changed.clear()
        await watch_begun()
        in_place(path, "")
        in_place(path, AB)
        await watcher.change()
        assert shown(store) == "a@10.0.0.1:8000 b@10.0.0.2:8000"
        assert watcher.removed == []


async def test_f15_a_file_is_not_watched_unless_asked(path: Path) -> None:
    in_place(path, A)
    async with discovering(path) as (_, store):
        in_place(path, AB)
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "watch directories"]
        assert len(store) == 1
