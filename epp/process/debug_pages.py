"""The debug pages of a pool, by path."""

from __future__ import annotations

from collections.abc import Mapping

from epp.pool.pool import Pool
from epp.transport.http_server import JsonSource, PageRequest, reading


def pool_pages(pool: Pool) -> Mapping[str, JsonSource]:
    """What is asked with GET."""

    async def decisions(asked: PageRequest) -> object:
        return pool.decisions_page(asked.query)

    async def decision(asked: PageRequest) -> object:
        return pool.decision_page(asked.rest)

    return {
        "/debug/endpoints": reading(pool.endpoints_page),
        "/debug/config": reading(pool.config_page),
        "/debug/plugins/state": reading(pool.plugins_page),
        "/debug/decisions": decisions,
        "/debug/decisions/": decision,
    }
