"""What happens to a request before the engine of its server sees it, when several servers work on it."""

from __future__ import annotations

from typing import Self

import aiohttp

from epp.simulate.exchange import Exchange, Handover, Json, bad_request
from epp.simulate.options import ServerOptions
from epp.simulate.sidecar import Sidecar, media_of, stages_of
from epp.simulate.transfer_params import MEMBER, TransferParams, transfer_params
from epp.simulate.transfers import fetch


class Disaggregation:
    """One server's part in requests of several servers; an async context manager.

    Args:
        options: of this server.
        address: of this server, ``host:port``.
    """

    def __init__(self, options: ServerOptions, address: str) -> None:
        self._options = options
        self._address = address
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None, connect=10.0),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._sidecar = Sidecar(self._session, options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections to other servers."""
        await self._session.close()

    async def prepare(self, exchange: Exchange) -> None:
        """Let other servers do their part, fetch what they have computed, and say what this one has to do.

        Raises:
            ApiError: 400, the request is malformed, contradicts itself or is not for a server of this role.
            RefusedError: another server failed.
        """
        stages = stages_of(exchange.request, self._options, self._address)
        if stages.encode or stages.prefill:
            await self._sidecar.run(exchange, stages)
        body = await exchange.json()
        params = transfer_params(body)
        self._check_role(body, params)
        # Blocks that are gone are no error: the prompt is computed here, as by vLLM.
        digest = await fetch(self._session, params.prefilled) if params.prefilled else None
        if digest or params.decodes_elsewhere:
            exchange.handover = Handover(keeps=params.decodes_elsewhere, fetched_digest=digest or "")

    def _check_role(self, body: Json, params: TransferParams) -> None:
        stages = self._options.stages
        if not self._options.disaggregation.strict_roles or not stages or "decode" in stages:
            return
        computes = "prefill" in stages and params.decodes_elsewhere
        encodes = "encode" in stages and bool(media_of(body))
        if not computes and not encodes:
            needs = {"prefill": f"do_remote_decode in {MEMBER}", "encode": "media in its messages"}
            wanted = " or ".join(needs[stage] for stage in sorted(stages, reverse=True))
            raise bad_request(f"this server's role is {'-'.join(sorted(stages))}: a request needs {wanted}", MEMBER)
