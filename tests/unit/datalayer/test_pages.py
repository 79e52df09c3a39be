"""Both ways of reading pages give the same for whatever a server may answer."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest

from tests.unit.datalayer.raw_pages import CASES, PAGE, WAYS, Case, fetching_by, ok, raw_server


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in CASES])
async def test_answers(case: Case, way: str) -> None:
    async with raw_server(*case.replies) as server, fetching_by(way, case.timeout_s) as fetching:
        for _ in range(case.fetches - 1):
            with suppress(OSError):
                await fetching.fetch(server.endpoint())
        if case.page is not None:
            assert await fetching.fetch(server.endpoint()) == case.page
        else:
            with pytest.raises(OSError, match=f"^{re.escape(case.error.replace('{url}', f'http://{server.host}/metrics'))}$"):
                await fetching.fetch(server.endpoint())
    if case.paths:
        assert tuple(head.split()[1].decode() for head in server.requests) == case.paths


@pytest.mark.parametrize("way", WAYS)
async def test_nobody_listens(way: str) -> None:
    async with raw_server() as server:
        gone = server.endpoint()
    async with fetching_by(way) as fetching:
        with pytest.raises(OSError, match=rf"^cannot connect to http://{gone.host_port}/metrics: Connection refused$"):
            await fetching.fetch(gone)


@pytest.mark.parametrize("way", WAYS)
async def test_what_is_asked(way: str) -> None:
    async with raw_server(ok(PAGE)) as server, fetching_by(way) as fetching:
        await fetching.fetch(server.endpoint())
    request, *headers = server.requests[0].decode().removesuffix("\r\n\r\n").split("\r\n")
    assert request == "GET /metrics HTTP/1.1"
    assert {name.lower(): value for name, _, value in (header.partition(": ") for header in headers)} == {
        "host": server.host,
        "accept": "text/plain; version=0.0.4",
        "accept-encoding": "identity",
        "user-agent": "endpoint-picker",
    }


@pytest.mark.parametrize("way", WAYS)
async def test_one_connection_is_kept(way: str) -> None:
    async with raw_server(ok(PAGE)) as server, fetching_by(way) as fetching:
        for _ in range(5):
            await fetching.fetch(server.endpoint())
        assert server.connections == 1
