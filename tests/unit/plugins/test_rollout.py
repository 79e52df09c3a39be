"""disaggregatedset-rollout-screener: complete revisions, their shares, strict headers, and what the response tells."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import ValidationError

from epp.framework.candidates import Candidates
from epp.framework.results import SchedulingResult
from epp.framework.testing import FakeHeaders, RecordedEdits, RecordedMetrics, make_context, make_plugin, make_request
from epp.framework.types import UNSCRAPED, Endpoint, EndpointChange, Freshness, ResponseInfo
from plugins.screeners import rollout
from plugins.shared.label_selector import parse_selector

REVISION, ROLE = "disaggregatedset.x-k8s.io/revision", "disaggregatedset.x-k8s.io/role"
SELECTORS = [
    {"name": "revision", "headerName": "X-Revision", "labelKey": REVISION},
    {"name": "slice", "headerName": "x-slice", "labelKey": "slice", "mode": "prefer"},
]


def endpoints(revision: str, role: str, count: int, **labels: str) -> list[Endpoint]:
    """So many pods of a role."""
    made = {REVISION: revision, ROLE: role, "app": "chat", **labels}
    return [Endpoint.of(f"{revision}-{role}-{number}", f"10.0.{len(revision)}.{number}", 8000, made) for number in range(count)]


TWO_TO_TEN = [
    *endpoints("a", "prefill", 2),
    *endpoints("a", "decode", 9),
    *endpoints("b", "prefill", 1),
    *endpoints("b", "decode", 1),
]


class Rig:
    """The screener and a pool."""

    def __init__(self, pool: Sequence[Endpoint], mode: str = "sum", roles: Sequence[str] = ("prefill", "decode")) -> None:
        self.metrics = RecordedMetrics()
        context = make_context(metrics=self.metrics)
        context.rng = random.Random(3)
        gating: dict[str, Any] = {"mode": mode, "requireRoles": {"values": list(roles)}}
        parameters = {"scope": {"labelSelector": "app=chat"}, "headerSelectors": SELECTORS, "revisionGating": gating}
        self.screener: Any = make_plugin(rollout.PLUGIN, parameters, context)
        self.pool = list(pool)
        self.screener.endpoints_changed(EndpointChange(added=tuple(pool)))

    def screened(self, **headers: str) -> list[Endpoint]:
        """What is left for a request."""
        size = len(self.pool)
        candidates = Candidates(tuple(self.pool), (UNSCRAPED,) * size, tuple(Freshness() for _ in range(size)))
        request = make_request(headers={name.replace("_", "-"): value for name, value in headers.items()})
        return list(self.screener.screen(request, candidates))

    def revisions(self, **headers: str) -> set[str]:
        """The revisions that are left."""
        return {endpoint.labels[REVISION] for endpoint in self.screened(**headers)}

    @property
    def shares(self) -> dict[str, float]:
        """Of the traffic."""
        shares: dict[str, float] = self.screener.debug_state()["shares"]
        return shares


@pytest.mark.parametrize(
    ("mode", "shares"),
    [("max-role", {"a": 0.9, "b": 0.1}), ("sum", {"a": 0.8462, "b": 0.1538})],
)
def test_shares_of_two_revisions(mode: str, shares: dict[str, float]) -> None:
    rig = Rig(TWO_TO_TEN, mode)
    assert rig.shares == shares
    counts: Counter[str] = Counter()
    for _ in range(4000):
        (revision,) = rig.revisions()
        counts[revision] += 1
    assert counts["a"] / 4000 == pytest.approx(shares["a"], abs=0.03)
    assert len(rig.screened()) in (11, 2), "all roles of one revision stay"


@pytest.mark.parametrize("mode", ["max-role", "sum"])
def test_a_revision_without_one_of_the_roles_gets_nothing(mode: str) -> None:
    rig = Rig([*endpoints("a", "prefill", 1), *endpoints("a", "decode", 1), *endpoints("b", "decode", 50)], mode)
    assert rig.shares == {"a": 1.0}
    assert {frozenset(rig.revisions()) for _ in range(20)} == {frozenset({"a"})}
    assert rig.screened(x_revision="b") == []


def test_equal_roles_first_named_wins() -> None:
    pool = [*endpoints("a", "x", 3), *endpoints("a", "y", 1), *endpoints("b", "x", 1), *endpoints("b", "y", 3)]
    assert Rig(pool, "max-role", ("x", "y")).shares == {"a": 0.75, "b": 0.25}
    assert Rig(pool, "max-role", ("y", "x")).shares == {"a": 0.25, "b": 0.75}


def test_nothing_is_complete() -> None:
    assert Rig(endpoints("a", "prefill", 3)).screened() == []
    assert Rig([]).screened() == []


def test_endpoints_out_of_scope_do_not_count() -> None:
    rig = Rig([*endpoints("a", "prefill", 1), *endpoints("a", "decode", 1, app="other")])
    assert rig.shares == {}


def test_ranks_of_a_pod_count_once() -> None:
    labels = {REVISION: "a", ROLE: "decode", "app": "chat"}
    ranks = [Endpoint.of(f"p-rank-{i}", "10.0.0.1", 8000 + i, labels, pod_name="p", rank_index=i) for i in range(8)]
    rig = Rig([*ranks, *endpoints("a", "prefill", 1), *endpoints("b", "decode", 1), *endpoints("b", "prefill", 1)])
    assert rig.shares == {"a": 0.5, "b": 0.5}


def test_pods_come_change_and_go() -> None:
    rig = Rig(TWO_TO_TEN)
    gone = tuple(endpoint for endpoint in TWO_TO_TEN if endpoint.labels[REVISION] == "a" and endpoint.labels[ROLE] == "prefill")
    rig.screener.endpoints_changed(EndpointChange(removed=gone))
    assert rig.shares == {"b": 1.0}
    rig.screener.endpoints_changed(EndpointChange(added=gone))
    assert set(rig.shares) == {"a", "b"}
    relabelled = Endpoint.of("b-decode-0", "10.0.1.0", 8000, {REVISION: "c", ROLE: "decode", "app": "chat"})
    rig.screener.endpoints_changed(EndpointChange(updated=(relabelled,)))
    assert rig.shares == {"a": 1.0}


@pytest.mark.parametrize("mode", ["max-role", "sum", "disabled"])
def test_a_strict_header_chooses(mode: str) -> None:
    rig = Rig(TWO_TO_TEN, mode)
    assert {frozenset(rig.revisions(x_revision="b")) for _ in range(20)} == {frozenset({"b"})}
    assert rig.screened(x_revision="z") == []
    assert [count for name, count in rig.metrics.counts.items() if name[-1] == "revision"] == [1.0]


def test_disabled_draws_nothing_and_a_preference_screens_nothing() -> None:
    rig = Rig(TWO_TO_TEN, "disabled")
    assert rig.screened() == TWO_TO_TEN
    assert rig.screened(x_slice="1") == TWO_TO_TEN


def test_the_response_tells_the_labels_of_who_answered() -> None:
    rig = Rig(TWO_TO_TEN)
    served = endpoints("b", "decode", 1, slice="s1")[0]
    edits = RecordedEdits()
    response = ResponseInfo(200, FakeHeaders(), served, {}, 0.0)
    rig.screener.response_received(make_request(), SchedulingResult("p", {}, (served,)), response, edits)
    assert edits.values == {"x-revision": "b", "x-slice": "s1"}


@pytest.mark.parametrize("mode", ["sum", "max-role"])
def test_roles_are_needed(mode: str) -> None:
    with pytest.raises(ValidationError, match=r"needs at least one entry in requireRoles\.values"):
        Rig([], mode, ())


LABELS = {"a": "1", "b": "x", "app.kubernetes.io/name": "chat"}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("a=1", True), ("a==1", True), ("a=2", False), ("a!=2", True), ("a!=1", False), ("c!=1", True),
        ("a", True), ("c", False), ("!c", True), ("! a", False), ("a=1,b=x", True), ("a=1,b=y", False),
        ("b in (x,y)", True), ("b in (y, z)", False), ("b notin (y)", True), ("b notin (x)", False), ("c notin (x)", True),
        (" app.kubernetes.io/name = chat , !c", True), ("b in (x),a in (1)", True), ("a=", False),
    ],
)  # fmt: skip
def test_selectors_as_text(text: str, matches: bool) -> None:
    assert parse_selector(text)(LABELS) is matches


@pytest.mark.parametrize("text", ["", "a=1,", "=x", "a in x", "a in (x", "a b", "a>1=2", "!a=b"])
def test_texts_that_are_no_selector(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no condition|is not a label|empty"):
        parse_selector(text)
