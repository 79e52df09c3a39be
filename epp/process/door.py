"""A port of ext_proc with its transport, where requests find the pools that are behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from epp.hooks.runner import Spawn
from epp.pools.choice import PoolChoice
from epp.pools.models import ModelUnion
from epp.pools.readers import ReaderUnion
from epp.process.live_settings import LiveSettings
from epp.process.options import Options
from epp.process.served_pool import log_defect
from epp.seam import Port, Transport, TransportStats, total


class Together(NamedTuple):
    """What is behind a port that several pools share."""

    models: ModelUnion
    """Answers for the models of all pools."""
    spawn: Spawn


class Door:
    """A transport and the choice among its pools.

    Args:
        options: of the process, or of the only pool behind it.
        transport: not started yet.
        on_refused: told the pool ("" = none) and the reason of each request that no pool decides about.
        together: None = there is one pool behind it.
    """

    def __init__(
        self, options: Options, transport: Transport, on_refused: Callable[[str, str], None], together: Together | None = None
    ) -> None:
        self.transport = transport
        self.is_shared = together is not None
        # Also with one pool: where it is made anew, both read requests for a moment.
        self.settings = LiveSettings(options, transport, ReaderUnion())
        models, spawn = together if together is not None else (None, None)
        self.choice = PoolChoice(on_refused, models, spawn)

    async def listen(self, ports: Sequence[Port]) -> list[int]:
        """Serve; returns the numbers of the ports.

        Raises:
            UsageError: a port cannot be bound, or the TLS settings cannot be used.
        """
        return await self.transport.start(total(self.choice, log_defect), self.settings.first(), ports)


def sum_of(stats: Iterable[TransportStats]) -> TransportStats:
    """The counts of several transports as if they were one."""
    some = list(stats)
    ended: dict[str, int] = {}
    for each in some:
        _add(ended, each.ended)
    holds = [each.hold_counts for each in some if each.hold_counts]
    handovers = [each.handover_counts for each in some if each.handover_counts]
    return TransportStats(
        open_streams=sum(each.open_streams for each in some),
        ended=ended,
        hold_counts=tuple(sum(counts) for counts in zip(*holds, strict=True)),
        hold_sum_s=sum(each.hold_sum_s for each in some),
        buffered_bytes=sum(each.buffered_bytes for each in some),
        handover_counts=tuple(sum(counts) for counts in zip(*handovers, strict=True)),
        handover_sum_s=sum(each.handover_sum_s for each in some),
    )


def _add(to: dict[str, int], counts: Mapping[str, int]) -> None:
    for name, count in counts.items():
        to[name] = to.get(name, 0) + count
