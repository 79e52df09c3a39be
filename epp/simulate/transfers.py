"""Prompts that one simulated server computes and another fetches: what NIXL does between vLLM servers, with HTTP in its place.

The server that computed a prompt keeps its blocks until they are fetched or the time is up. Who fetches them gets, instead of
the bytes of a KV cache, a digest of the prompts, which must be those of its own request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence as Many
from dataclasses import dataclass
from hashlib import blake2b
from http import HTTPStatus
from itertools import count

import aiohttp
from aiohttp import web

from epp.simulate.driver import EngineDriver, Generation
from epp.simulate.exchange import ApiError, Exchange, Json, bad_request
from epp.simulate.ports import join_address
from epp.simulate.sequence import Sequence
from epp.simulate.transfer_params import MEMBER, RemotePrefill

PATH = "/simulated/kv_transfer"
"""Where blocks are fetched."""
_FETCH_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class _Offer:
    remote: RemotePrefill
    sequences: Many[Sequence]
    timer: asyncio.TimerHandle


class Offers:
    """Prompts of one server that wait to be fetched.

    Args:
        engine_id: tells this life of the server from others.
        host, port: where to fetch.
        driver: of the engine that holds the blocks.
        hold_s: how long they are held.
    """

    def __init__(self, engine_id: str, host: str, port: int, driver: EngineDriver, hold_s: float) -> None:
        self._engine_id = engine_id
        self._host = host
        self._port = port
        self._driver = driver
        self._hold_s = hold_s
        self._numbers = count(1)
        self._offers: dict[str, _Offer] = {}

    def __len__(self) -> int:
        return len(self._offers)

    def add(self, request_id: str, work: Generation) -> Json:
        """Keep the blocks of a finished request; returns what its answer says about them."""
        blocks = sum(len(sequence.blocks) + sequence.private_block for sequence in work.sequences)
        block_ids = tuple(next(self._numbers) for _ in range(blocks))
        remote = RemotePrefill(self._engine_id, request_id, block_ids, self._host, self._port)
        timer = asyncio.get_running_loop().call_later(self._hold_s, self._drop, request_id)
        self._offers[request_id] = _Offer(remote, work.hand_over(), timer)
        return {MEMBER: remote.params()}

    async def fetch(self, exchange: Exchange) -> web.StreamResponse:
        """Answer a server that fetches blocks, and let them go.

        Raises:
            ApiError: 404, there are no such blocks here, or no longer.
        """
        params = await exchange.json()
        offer = self._offers.get(str(params.get("remote_request_id")))
        asked = (params.get("remote_engine_id"), params.get("remote_block_ids"))
        if offer is None or asked != (offer.remote.engine_id, list(offer.remote.block_ids)):
            raise ApiError(HTTPStatus.NOT_FOUND, "There are no such blocks here, or no longer.")
        digest = prompts_digest([sequence.prompt for sequence in offer.sequences])
        self._drop(offer.remote.request_id)
        return await exchange.reply({"digest": digest})

    def close(self) -> None:
        """Let all blocks go."""
        for request_id in [*self._offers]:
            self._drop(request_id)

    def _drop(self, request_id: str) -> None:
        offer = self._offers.pop(request_id)
        offer.timer.cancel()
        self._driver.free(offer.sequences)


async def fetch(session: aiohttp.ClientSession, remote: RemotePrefill) -> str | None:
    """Fetch the blocks of prompts that another server has computed.

    Returns:
        The digest of these prompts; None if the blocks are gone or their server is.
    """
    url = f"http://{join_address(remote.host, remote.port)}{PATH}"
    timeout = aiohttp.ClientTimeout(total=_FETCH_TIMEOUT_S)
    try:
        async with session.post(url, json=remote.params(), timeout=timeout) as response:
            return str((await response.json())["digest"]) if response.status == HTTPStatus.OK else None
    except (aiohttp.ClientError, TimeoutError, OSError, KeyError, ValueError):
        return None


def prompts_digest(prompts: Many[bytes]) -> str:
    """What tells the prompts of one request from others; one that is there for several answers counts once."""
    digest = blake2b(digest_size=16)
    for prompt in dict.fromkeys(prompts):
        digest.update(len(prompt).to_bytes(8, "little") + prompt)
    return digest.hexdigest()


def check_digest(digest: str, prompts: Many[bytes]) -> None:
    """Refuse blocks of other prompts.

    Raises:
        ApiError: 400.
    """
    if digest != prompts_digest(prompts):
        raise bad_request(f"the blocks that {MEMBER} names are those of another prompt", MEMBER)
