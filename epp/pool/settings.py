"""What the process says about one pool."""

from __future__ import annotations

from dataclasses import dataclass, field

from epp.datalayer.objects import PoolIdentity
from epp.framework.handle import MetricsFlags
from epp.telemetry.decisions import DecisionOptions


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """Flags that concern one pool."""

    identity: PoolIdentity
    endpoints: tuple[str, ...] = ()
    """``--endpoint``: as they were given; none = a discovery plugin finds them."""
    objects: tuple[str, ...] = ()
    """``--objects``: files with objectives and rewrites."""
    use_subset: bool = True
    """False is ``--disable-endpoint-subset-filter``."""
    hold_back_unscraped: bool = False
    hold_back_stale: bool = False
    staleness_threshold_s: float = 2.0
    """Age up to which metrics are fresh."""
    refresh_interval_s: float = 0.05
    """Of data sources without an interval of their own."""
    emit_scores: bool = False
    max_body_bytes: int = 64 * 1024 * 1024
    """``--max-request-body-bytes``; 0 = no limit."""
    decisions: DecisionOptions = field(default_factory=DecisionOptions)
    """Which decisions are kept for explanations."""
    metrics_flags: MetricsFlags = field(default_factory=MetricsFlags)
