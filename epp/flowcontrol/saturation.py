"""How full the pool is, stage by stage: a full prefill stage is a full pool, however idle the decoding servers are.

Source: llm-d-router: pkg/epp/flowcontrol/controller/internal/processor.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import NamedTuple

from epp.flowcontrol.settings import DefectSink, Named
from epp.framework.candidates import Candidates
from epp.framework.flow_control import CountsCredits, CountsStale, Credits, ForeseesChanges
from epp.framework.interfaces import SaturationDetector
from epp.framework.types import Endpoint, InferenceRequest

ROLE_LABELS = ("mif.moreh.io/role", "llm-d.ai/role")
"""The first one that an endpoint has counts."""
_PREFILL = frozenset({"prefill", "encode-prefill", "both", "prefill-decode", "encode-prefill-decode"})
_DECODE = frozenset({"", "decode", "both", "prefill-decode", "encode-prefill-decode"})

TICK_S = 0.001
"""After which a detector that foresees nothing is asked again, and an inexact one lets the next request go."""


class Reading(NamedTuple):
    """The saturation of each stage; None = no endpoint serves it."""

    effective: float
    prefill: float | None = None
    decode: float | None = None


class Saturation:
    """Asks the detector.

    Args:
        detector: of the configuration.
        on_defect: told if it fails; the pool counts as full then.
    """

    def __init__(self, detector: Named[SaturationDetector], on_defect: DefectSink) -> None:
        self._on_defect = on_defect
        self.credits = Credits()
        self._endpoints: Sequence[Endpoint] | None = None
        self._prefill: list[int] | None = None
        self._decode: list[int] | None = None
        self._prefill_changes_s = inf
        """What the detector foresaw of that stage, before it was asked about the other."""
        self.use(detector)

    def use(self, detector: Named[SaturationDetector]) -> None:
        """Ask another one; credits stay."""
        self.detector = detector
        plugin = detector.plugin
        self._exact = plugin if isinstance(plugin, CountsCredits) else None
        self._foresees = plugin if isinstance(plugin, ForeseesChanges) else None
        self._stale = plugin if isinstance(plugin, CountsStale) else None

    @property
    def is_exact(self) -> bool:
        """Its value shows what was let go at once."""
        return self._exact is not None

    def take(self, request: InferenceRequest) -> int:
        """A request is let go.

        Returns:
            What to give back once it shows, or is over.
        """
        tokens = self._tokens(request) if self._exact is not None else 0
        credit = self.credits
        credit.requests += 1
        credit.tokens += tokens
        credit.taken += 1
        return tokens

    def give_back(self, tokens: int) -> None:
        """A request shows in the counts, or ended before."""
        self.credits.requests -= 1
        self.credits.tokens -= tokens

    def effective(self, endpoints: Candidates) -> float:
        """The saturation of the fullest stage; 1.0 and more = full."""
        if endpoints.endpoints is not self._endpoints:
            self._look_at_roles(endpoints.endpoints)
        if self._prefill is None:
            return self._ask(endpoints)
        return self.read(endpoints).effective

    def read(self, endpoints: Candidates) -> Reading:
        """The saturation of each stage."""
        if endpoints.endpoints is not self._endpoints:
            self._look_at_roles(endpoints.endpoints)
        if self._prefill is None:
            value = self._ask(endpoints)
            return Reading(value, decode=value if self._decode is None and endpoints else None)
        prefill = self._ask(_stage(endpoints, "prefill", self._prefill)) if self._prefill else None
        self._prefill_changes_s = self._foreseen_s() if self._prefill else inf
        decode = self._ask(_stage(endpoints, "decode", self._decode or [])) if self._decode else None
        stages = [value for value in (prefill, decode) if value is not None]
        return Reading(max(stages), prefill, decode)

    def next_change_s(self, now_s: float) -> float:
        """When the value may change by time alone; infinity = never."""
        if self._foresees is None:
            return now_s + TICK_S
        return max(min(self._foreseen_s(), self._prefill_changes_s), now_s + TICK_S)

    def stale_endpoints(self, endpoints: Candidates) -> int | None:
        """Endpoints whose metrics are too old; None if the detector reads none."""
        return self._stale.stale_endpoints(endpoints) if self._stale is not None else None

    def _ask(self, endpoints: Candidates) -> float:
        try:
            if self._exact is not None:
                value = self._exact.saturation_with(endpoints, self.credits)
            else:
                value = self.detector.plugin.saturation(endpoints)
            if value >= 0:
                return value
            self._on_defect("SaturationDetector", self.detector, f"gave {value!r}, which is no saturation")
        except Exception as error:  # noqa: BLE001 — reported
            self._on_defect("SaturationDetector", self.detector, error)
        return 1.0

    def _foreseen_s(self) -> float:
        """When the value that was given last changes."""
        if self._foresees is None:
            return inf
        try:
            return float(self._foresees.next_change_s())
        except Exception as error:  # noqa: BLE001 — reported
            self._on_defect("SaturationDetector", self.detector, error)
            return inf

    def _tokens(self, request: InferenceRequest) -> int:
        assert self._exact is not None
        try:
            return int(self._exact.credit_tokens(request))
        except Exception as error:  # noqa: BLE001 — reported
            self._on_defect("SaturationDetector", self.detector, error)
            return 0

    def _look_at_roles(self, endpoints: Sequence[Endpoint]) -> None:
        """Which endpoints are of which stage; None for both = all of them decode, or none has a stage, so that the whole pool
        is one stage.
        """
        self._endpoints = endpoints
        self._prefill_changes_s = inf
        roles = [_role(endpoint) for endpoint in endpoints]
        prefill = [position for position, role in enumerate(roles) if role in _PREFILL]
        decode = [position for position, role in enumerate(roles) if role in _DECODE]
        if not prefill and len(decode) == len(roles):
            self._prefill = self._decode = None
        elif not prefill and not decode:
            self._prefill, self._decode = None, []
        else:
            self._prefill, self._decode = prefill, decode


def _role(endpoint: Endpoint) -> str:
    for label in ROLE_LABELS:
        role = endpoint.labels.get(label)
        if role is not None:
            return role
    return ""


class _Stage(NamedTuple):
    name: str


def _stage(endpoints: Candidates, name: str, positions: list[int]) -> Candidates:
    """The endpoints of a stage; the same object until one of them or its metrics change."""
    key = _Stage(name)
    known = endpoints.memo.get(key)
    if not isinstance(known, Candidates):
        known = endpoints.memo[key] = endpoints.select(positions)
    return known
