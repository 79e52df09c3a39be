"""The models of all pools together: asked of their servers, each once, with the credentials of the client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any, Self

import pytest
from aiohttp import web

from epp.errors import ErrorCode, RequestError
from epp.framework.testing import FakeClock, FakeHeaders
from epp.pools.models import KEPT_S, MOST_KEPT, ModelServers, ModelUnion, asks_for_models


class Server:
    """A model server that lists these models to whoever has its key."""

    def __init__(self, *names: str, key: str = "", status: int = 200, body: bytes | None = None) -> None:
        self.document = {"object": "list", "data": [{"id": name, "owned_by": "vllm", "root": name} for name in names]}
        self.asked: list[str] = []
        self._key = key
        self._status = status
        self._body = body
        self.address = ""
        self._runner: web.ServerRunner

    async def __aenter__(self) -> Self:
        self._runner = web.ServerRunner(web.Server(self._answer), shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.address = f"127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        token = request.headers.get("authorization", "")
        self.asked.append(f"{request.path} {token}".strip())
        if self._key and token != f"Bearer {self._key}":
            return web.Response(status=401)
        body = json.dumps(self.document).encode() if self._body is None else self._body
        return web.Response(status=self._status, body=body, content_type="application/json")


@pytest.fixture
async def unions() -> AsyncIterator[list[ModelUnion]]:
    made: list[ModelUnion] = []
    yield made
    for union in made:
        await union.close()


def union_of(unions: list[ModelUnion], clock: FakeClock, *pools: Sequence[str]) -> ModelUnion:
    union = ModelUnion(lambda: [ModelServers(addresses) for addresses in pools], clock)
    unions.append(union)
    return union


def asked(path: str = "/v1/models", **headers: str) -> FakeHeaders:
    return FakeHeaders({":method": "GET", ":path": path, **headers})


async def names(union: ModelUnion, **headers: str) -> list[str]:
    document: Any = json.loads((await union.reply(asked(**headers))).body)
    return [model["id"] for model in document["data"]]


async def refused(union: ModelUnion, path: str = "/v1/models") -> ErrorCode:
    with pytest.raises(RequestError) as caught:
        await union.reply(asked(path))
    return caught.value.code


async def test_each_model_once_sorted_as_its_first_server_has_it(unions: list[ModelUnion]) -> None:
    async with Server("b", "z") as first, Server("a", "b") as second, Server("c") as third:
        second.document["data"][1]["owned_by"] = "second"  # type: ignore[index]
        union = union_of(unions, FakeClock(), [first.address, second.address], [third.address])
        document = json.loads((await union.reply(asked())).body)
        assert [model["id"] for model in document["data"]] == ["a", "b", "c", "z"]
        assert document["data"][1] == {"id": "b", "owned_by": "vllm", "root": "b"}
        assert json.loads((await union.reply(asked("/v1/models/c"))).body)["id"] == "c"
        assert await refused(union, "/v1/models/none") is ErrorCode.NOT_FOUND


async def test_a_server_that_does_not_tell_is_left_out(unions: list[ModelUnion]) -> None:
    async with Server("a") as good, Server(status=500) as bad, Server(body=b"{") as broken, Server(body=b"[]") as odd:
        union = union_of(unions, FakeClock(), [bad.address, "127.0.0.1:1", broken.address, odd.address], [good.address])
        assert await names(union) == ["a"]


async def test_a_list_is_kept_for_some_seconds_for_the_same_credentials(unions: list[ModelUnion]) -> None:
    clock = FakeClock()
    async with Server("a", key="k") as server, Server("b") as other:
        union = union_of(unions, clock, [server.address, other.address])
        assert await asyncio.gather(names(union, authorization="Bearer k"), names(union, authorization="Bearer k")) == [
            ["a", "b"],
            ["a", "b"],
        ]
        assert await names(union) == ["b"], "whoever has no key is not told what another one was"
        assert server.asked == ["/v1/models Bearer k", "/v1/models"]
        clock.advance(KEPT_S)
        await names(union)
        assert len(server.asked) == 3
        for number in range(MOST_KEPT + 5):
            await names(union, authorization=f"Bearer {number}")
        assert len(union._lists) == MOST_KEPT


async def test_without_any_answer_the_client_is_told_why(unions: list[ModelUnion]) -> None:
    async with Server("a", key="k") as server:
        assert await refused(union_of(unions, FakeClock(), [server.address])) is ErrorCode.UNAUTHORIZED
        assert await refused(union_of(unions, FakeClock(), [server.address, "127.0.0.1:1"])) is ErrorCode.SERVICE_UNAVAILABLE
        assert await refused(union_of(unions, FakeClock())) is ErrorCode.SERVICE_UNAVAILABLE


@pytest.mark.parametrize(
    ("method", "path", "is_asked"),
    [
        ("GET", "/v1/models", True),
        ("GET", "/v1/models/", True),
        ("GET", "/v1/models?x=y", True),
        ("GET", "/v1/models/meta/llama", True),
        ("POST", "/v1/models", False),
        ("GET", "/v1/modelsx", False),
        ("GET", "/models", False),
    ],
)
def test_what_asks_for_models(method: str, path: str, is_asked: bool) -> None:
    assert asks_for_models(FakeHeaders({":method": method, ":path": path})) is is_asked
