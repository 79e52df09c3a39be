"""Named components → readiness, and the answers that gRPC and HTTP probes get from it.

Ready = every component is, no drain has begun, and, with leader election, we lead. Liveness never depends on readiness: a
picker that waits for its pool or drains must not be killed by its own probe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from epp.seam import HealthStatus, HealthTable

LIVENESS = "liveness"
READINESS_SERVICES = ("", "readiness", "envoy.service.ext_proc.v3.ExternalProcessor")
"""Names that always have an answer of their own. Source: llm-d-router: cmd/epp/runner/health.go."""


class Health:
    """The picker's readiness.

    Args:
        components: what must be ready; each starts as not ready.
        leader_election: readiness needs leadership too.
        on_change: told the new table whenever an answer changes, on the thread that caused it.
    """

    def __init__(
        self,
        components: Iterable[str],
        *,
        leader_election: bool = False,
        on_change: Callable[[HealthTable], None] | None = None,
    ) -> None:
        self._waiting_for: dict[str, str | None] = dict.fromkeys(components, "not started")
        self._needs_lead = leader_election
        self._leads = False
        self._drains = False
        self._on_change = on_change
        self._named: dict[str, bool] = {}

    @property
    def ready(self) -> bool:
        """New requests are welcome."""
        return not self.why()

    @property
    def draining(self) -> bool:
        """``drain`` was called; there is no way back."""
        return self._drains

    def why(self) -> list[str]:
        """Why not ready, one phrase each; empty = ready."""
        reasons = [f"{name}: {reason}" for name, reason in self._waiting_for.items() if reason is not None]
        if self._drains:
            reasons.insert(0, "draining")
        if self._needs_lead and not self._leads:
            reasons.append("not the leader")
        return reasons

    def table(self) -> HealthTable:
        """Answers by service name.

        Without leader election any other name gets the answer of readiness, as charts probe names of their own
        (``inference-extension``); with it they are unknown, as llm-d-router has it.
        """
        readiness = HealthStatus.SERVING if self.ready else HealthStatus.NOT_SERVING
        statuses = dict.fromkeys(READINESS_SERVICES, readiness)
        statuses[LIVENESS] = HealthStatus.SERVING
        is_away = self._drains or (self._needs_lead and not self._leads)
        for name, ready in self._named.items():
            statuses[name] = HealthStatus.SERVING if ready and not is_away else HealthStatus.NOT_SERVING
        return HealthTable(statuses, HealthStatus.SERVICE_UNKNOWN if self._needs_lead else readiness)

    def set_ready(self, component: str) -> None:
        """A component can serve.

        Raises:
            KeyError: the component was not named at construction.
        """
        self._change(component, None)

    def set_not_ready(self, component: str, reason: str) -> None:
        """A component cannot serve; ``reason`` is a short phrase for operators. Raises as ``set_ready`` does."""
        self._change(component, reason)

    def set_named(self, ready: Mapping[str, bool]) -> None:
        """Answer for these names by themselves: the pools of a process that serves several."""
        before = self.table()
        self._named = dict(ready)
        self._tell(before)

    def set_leading(self, leads: bool) -> None:
        """Leadership was won or lost; without effect unless leader election is on."""
        before = self.table()
        self._leads = leads
        self._tell(before)

    def drain(self) -> None:
        """Not ready from now on, whatever the components say."""
        before = self.table()
        self._drains = True
        self._tell(before)

    def _change(self, component: str, reason: str | None) -> None:
        if component not in self._waiting_for:
            msg = f"no health component {component!r}; there are {', '.join(self._waiting_for) or 'none'}"
            raise KeyError(msg)
        before = self.table()
        self._waiting_for[component] = reason
        self._tell(before)

    def _tell(self, before: HealthTable) -> None:
        after = self.table()
        if self._on_change is not None and after != before:
            self._on_change(after)
