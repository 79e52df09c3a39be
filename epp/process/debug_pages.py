"""The debug pages of a pool, by path."""

from __future__ import annotations

from collections.abc import Mapping

from epp.pool.pool import Pool
from epp.process.config_reload import ConfigReload
from epp.transport.http_server import JsonSource, PageRequest, reading


def pool_pages(pool: Pool, reload: ConfigReload | None) -> Mapping[str, JsonSource]:
    """What is asked with GET.

    Args:
        reload: of its configuration; None if that has no file.
    """

    def config() -> object:
        last = reload.last if reload is not None else None
        return {**pool.config_page(), "reload": last.as_json() if last is not None else None}

    async def decisions(asked: PageRequest) -> object:
        return pool.decisions_page(asked.query)

    async def decision(asked: PageRequest) -> object:
        return pool.decision_page(asked.rest)

    return {
        "/debug/endpoints": reading(pool.endpoints_page),
        "/debug/config": reading(config),
        "/debug/plugins/state": reading(pool.plugins_page),
        "/debug/queues": reading(pool.queues_page),
        "/debug/shadow": reading(pool.shadow_page),
        "/debug/decisions": decisions,
        "/debug/decisions/": decision,
    }
