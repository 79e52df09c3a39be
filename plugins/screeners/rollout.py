"""disaggregatedset-rollout-screener: keep a request within one revision of a disaggregated deployment."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Literal

from pydantic import Field, model_validator

from epp.framework.candidates import Candidates
from epp.framework.handle import Counter as MetricCounter
from epp.framework.handle import PluginContext
from epp.framework.interfaces import HeaderEdits, Role
from epp.framework.params import Params
from epp.framework.registry import PluginType
from epp.framework.results import SchedulingResult
from epp.framework.types import Endpoint, EndpointChange, EndpointId, InferenceRequest, ResponseInfo
from plugins.shared.label_selector import LabelKey, Matcher, SelectorText, parse_selector

TYPE = "disaggregatedset-rollout-screener"
NO_MATCH = "llm_d_epp_disaggregatedset_strict_header_no_match_total"


class RolloutScope(Params):
    """Which endpoints are screened."""

    label_selector: SelectorText = Field(
        min_length=1, description="Endpoints of the deployment, a selector such as `app=x,tier!=y`."
    )


class HeaderSelector(Params):
    """A header that chooses endpoints by label."""

    name: str = Field(default="", description="Name of the selector.")
    header_name: str = Field(min_length=1, description="Request header with the wanted value.")
    label_key: LabelKey = Field(description="Label that must have it.")
    mode: Literal["strict", "prefer"] = Field(default="strict", description="Whether no such endpoint is an error.")


class RequiredRoles(Params):
    """Roles that a revision must cover."""

    values: list[str] = Field(default=[], description="Roles.")


class RevisionGating(Params):
    """How a revision is chosen."""

    mode: Literal["sum", "max-role", "disabled"] = Field(
        description="Weight of a revision: all its ready endpoints, or those of the largest role; or no choice."
    )
    require_roles: RequiredRoles = Field(default_factory=RequiredRoles, description="Roles that a revision must cover.")
    revision_label_key: LabelKey = Field(default="disaggregatedset.x-k8s.io/revision", description="Label with the revision.")
    role_label_key: LabelKey = Field(default="disaggregatedset.x-k8s.io/role", description="Label with the role.")

    @model_validator(mode="after")
    def _check_roles(self) -> RevisionGating:
        if self.mode != "disabled" and not self.require_roles.values:
            raise ValueError(f"mode {self.mode} needs at least one entry in requireRoles.values")
        return self


class RolloutScreenerParams(Params):
    """Parameters of disaggregatedset-rollout-screener."""

    scope: RolloutScope = Field(description="Which endpoints are screened.")
    header_selectors: list[HeaderSelector] = Field(default=[], description="Headers that choose endpoints by label.")
    revision_gating: RevisionGating = Field(description="How a revision is chosen.")


class Revisions:
    """How many pods of each role each revision has, and from that the share of the traffic that it gets.

    Args:
        gating: which roles a revision must have, and how it is weighed.
    """

    def __init__(self, gating: RevisionGating) -> None:
        self._gating = gating
        self._roles = tuple(dict.fromkeys(gating.require_roles.values))
        self.weights: Mapping[str, int] = {}
        """Of the revisions that have every role, by name."""

    def count(self, pods: Mapping[str, tuple[str, str]]) -> None:
        """These are the pods now: name → revision and role."""
        counts: dict[str, Counter[str]] = {}
        for revision, role in pods.values():
            counts.setdefault(revision, Counter())[role] += 1
        covered = {name: count for name, count in sorted(counts.items()) if all(count[role] for role in self._roles)}
        roles: Sequence[str] = self._roles
        if self._gating.mode == "max-role" and covered:
            # One role for all revisions; of equal ones the first that is named.
            roles = (max(self._roles, key=lambda role: sum(count[role] for count in covered.values())),)
        self.weights = {name: sum(count[role] for role in roles) for name, count in covered.items()}


class RolloutScreener:
    """Keep all endpoints of a request within one revision, so that no prefill meets a decode of another one.

    Parameters: scope, headerSelectors, revisionGating.
    Reads: labels; the headers of the selectors.
    Formula: with the header of a strict selector only endpoints whose label has its value. Without one, modes sum and max-role
        draw a revision that has a ready pod of every required role, with a weight of its pods of all required roles, or of the
        role with the most pods in all. Mode disabled draws none. Every selector's label of the endpoint that answered goes into
        the response, by which a coordinator finds the same revision again.
    Missing data: no endpoint left, as where no revision is complete, is 503. An endpoint out of the scope, or without the label
        of the revision, is none of any revision. Roles are counted among the endpoints of the pool.
    Source: llm-d-router: pkg/epp/framework/plugins/requestcontrol/screener/disaggregatedsetrollout
    """

    def __init__(
        self,
        scope: Matcher,
        selectors: Sequence[HeaderSelector],
        gating: RevisionGating,
        rng: random.Random,
        no_match: Mapping[str, MetricCounter],
    ) -> None:
        self._scope = scope
        self._selectors = [(entry.name, entry.header_name.lower(), entry.label_key) for entry in selectors]
        self._strict = [
            (entry.name, entry.header_name.lower(), entry.label_key) for entry in selectors if entry.mode == "strict"
        ]
        self._gating = gating if gating.mode != "disabled" else None
        self._rng = rng
        self._no_match = no_match
        self._revisions = Revisions(gating)
        self._endpoints: dict[EndpointId, Endpoint] = {}

    def endpoints_changed(self, change: EndpointChange) -> None:
        """Count the pods of each revision anew."""
        for endpoint in change.removed:
            self._endpoints.pop(endpoint.id, None)
        for endpoint in (*change.added, *change.updated):
            self._endpoints[endpoint.id] = endpoint
        if self._gating is None:
            return
        revision, role = self._gating.revision_label_key, self._gating.role_label_key
        self._revisions.count(
            {
                f"{endpoint.namespace}/{endpoint.pod_name}": (endpoint.labels[revision], endpoint.labels[role])
                for endpoint in self._endpoints.values()
                if endpoint.labels.get(revision) and endpoint.labels.get(role) and self._scope(endpoint.labels)
            }
        )

    def screen(self, request: InferenceRequest, candidates: Candidates) -> Candidates:
        """The endpoints of one revision, with the labels that strict headers ask for."""
        wanted = [(name, label, value) for name, header, label in self._strict if (value := request.headers.get(header))]
        if self._gating is not None:
            candidates = self._one_revision(self._gating.revision_label_key, candidates, draws=not wanted)
        for name, label, value in wanted:
            if not candidates:
                break
            candidates = candidates.where([endpoint.labels.get(label) == value for endpoint in candidates.endpoints])
            if not candidates:
                self._no_match[name].inc()
        return candidates

    def response_received(
        self, request: InferenceRequest, result: SchedulingResult, response: ResponseInfo, edits: HeaderEdits
    ) -> None:
        """Tell the labels of the endpoint that answered."""
        for _, header, label in self._selectors:
            if value := response.served.labels.get(label):
                edits.set(header, value)

    def debug_state(self) -> object:
        """Share of the traffic of each complete revision."""
        weights = self._revisions.weights
        total = sum(weights.values())
        return {"shares": {name: round(weight / total, 4) for name, weight in weights.items()}}

    def _one_revision(self, label: str, candidates: Candidates, *, draws: bool) -> Candidates:
        weights = self._revisions.weights
        revisions = [endpoint.labels.get(label) for endpoint in candidates.endpoints]
        present = [name for name in weights if name in revisions]
        if draws and len(present) > 1:
            present = self._rng.choices(present, cum_weights=list(accumulate(weights[name] for name in present)))
        allowed = frozenset(present)
        return candidates.where([revision in allowed for revision in revisions])


def _create(context: PluginContext, params: RolloutScreenerParams) -> RolloutScreener:
    counters = {
        entry.name: context.metrics.counter(NO_MATCH, plugin_type=context.type, plugin_name=context.name, selector=entry.name)
        for entry in params.header_selectors
    }
    scope = parse_selector(params.scope.label_selector)
    return RolloutScreener(scope, params.header_selectors, params.revision_gating, context.rng, counters)


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.SCREENER, Role.RESPONSE_RECEIVED}),
    summary="Keeps a request within one revision of a disaggregated deployment.",
    params=RolloutScreenerParams,
    factory=_create,
    experimental=True,
    example="""
        scope:
          labelSelector: app=chat
        headerSelectors:
        - name: revision
          headerName: x-disagg-revision
          labelKey: disaggregatedset.x-k8s.io/revision
        revisionGating:
          mode: max-role
          requireRoles:
            values: [prefill, decode]
    """,
)
