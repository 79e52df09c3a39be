"""Which endpoints a request may go to: subset hints of all forms, endpoints that are held back."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from epp.datalayer.store import EndpointStore
from epp.decision.candidates import MAX_HINTS, CandidateFinder
from epp.errors import DropReason, ErrorCode, RequestError
from epp.framework.testing import FakeClock
from epp.framework.types import UNSCRAPED, Endpoint, EndpointMetrics

Metadata = Mapping[str, Mapping[str, object]]
ALL = "ABCDEV"


def store() -> EndpointStore:
    """A, B, C on addresses of their own; D and E share C's; V has an IPv6 address."""
    found = EndpointStore()
    found.replace_all(
        [
            Endpoint.of("A", "192.168.1.1", 8000),
            Endpoint.of("B", "192.168.1.2", 8000),
            Endpoint.of("C", "192.168.1.3", 8000),
            Endpoint.of("D", "192.168.1.3", 8001),
            Endpoint.of("E", "server.local", 8000),
            Endpoint.of("V", "fd00::5", 8000),
        ]
    )
    return found


def hint(value: object) -> Metadata:
    return {"envoy.lb.subset_hint": {"x-gateway-destination-endpoint-subset": value}}


def found(finder: CandidateFinder, metadata: Metadata) -> str:
    """Names of the candidates; "" for the 503."""
    try:
        candidates = finder.find(metadata)
    except RequestError as error:
        return "" if error.reason is DropReason.NO_ENDPOINTS else str(error)
    assert len(candidates.metrics) == len(candidates) > 0
    return "".join(endpoint.name for endpoint in candidates)


@pytest.mark.parametrize(
    ("metadata", "names"),
    [
        pytest.param({}, ALL, id="no metadata"),
        pytest.param({"envoy.lb": {"x-gateway-destination-endpoint-subset": []}}, ALL, id="another namespace"),
        pytest.param({"envoy.lb.subset_hint": {}}, ALL, id="no hint"),
        pytest.param(hint(["192.168.1.1:8000", "192.168.1.2:8000", "192.168.1.3:8000"]), "ABC", id="C33 with ports"),
        pytest.param(hint(["192.168.1.3:8000"]), "C", id="C34 one of a shared address"),
        pytest.param(hint(["192.168.1.99:8000"]), "", id="C35 unknown"),
        pytest.param(hint([]), "", id="C36 empty list"),
        pytest.param(hint([5, "192.168.1.1:8000"]), "A", id="C37 beside a number"),
        pytest.param(hint("192.168.1.1:8000, 192.168.1.3:8000"), "AC", id="C38 text with commas"),
        pytest.param(hint(["192.168.1.1:9999"]), "", id="C39 wrong port"),
        pytest.param(hint(["192.168.1.1"]), "A", id="C39 without port"),
        pytest.param(hint(["192.168.1.3"]), "CD", id="without port, shared address"),
        pytest.param(hint(["192.168.1.3:8001"]), "D", id="rank of a shared address"),
        pytest.param(hint(["192.168.1.3", "192.168.1.1:8000"]), "ACD", id="in the order of the store"),
        pytest.param(hint(("192.168.1.1:8000",)), "A", id="a tuple"),
        pytest.param(hint(["server.local:8000"]), "E", id="host name with port"),
        pytest.param(hint(["server.local"]), "E", id="host name"),
        pytest.param(hint(["[fd00::5]:8000"]), "V", id="IPv6 with port"),
        pytest.param(hint(["[fd00::5]:8001"]), "", id="IPv6 with wrong port"),
        pytest.param(hint(["[fd00::5]"]), "V", id="IPv6 in brackets"),
        pytest.param(hint(["fd00::5"]), "V", id="IPv6 bare"),
        pytest.param(hint(["[FD00:0:0::5]:8000"]), "V", id="IPv6 in another spelling, with port"),
        pytest.param(hint(["FD00:0:0::5"]), "V", id="IPv6 in another spelling"),
        pytest.param(hint("[fd00::5]:8000,192.168.1.1"), "AV", id="IPv6 in text"),
        pytest.param(hint([" 192.168.1.1:8000\t"]), "A", id="blanks"),
        pytest.param(hint(""), "", id="empty text"),
        pytest.param(hint(" , ,"), "", id="commas only"),
        pytest.param(hint(None), "", id="null"),
        pytest.param(hint(5), "", id="a number"),
        pytest.param(hint({"192.168.1.1:8000": True}), "", id="an object"),
        pytest.param(hint([None, ["192.168.1.1:8000"], {}]), "", id="nothing usable"),
        pytest.param(hint(["", ":", "[", "]", "[]", "[]:", "::", "[x]:y", "192.168.1.1:", ":8000", "a:b:c"]), "", id="junk"),
        pytest.param(hint(["192.168.1.1:8000"] * 3), "A", id="doubled"),
    ],
)
def test_the_subset_hint(metadata: Metadata, names: str) -> None:
    assert found(CandidateFinder(store()), metadata) == names


def test_the_text_of_the_refusal() -> None:
    with pytest.raises(RequestError) as caught:
        CandidateFinder(store()).find(hint([]))
    assert caught.value == RequestError(
        ErrorCode.SERVICE_UNAVAILABLE,
        "failed to find endpoint candidates for serving the request",
        DropReason.NO_ENDPOINTS,
    )


def test_the_hint_can_be_ignored() -> None:
    assert found(CandidateFinder(store(), use_subset=False), hint([])) == ALL, "C40: the subset filter is off"


def test_without_endpoints() -> None:
    assert found(CandidateFinder(EndpointStore()), {}) == ""


def test_without_a_hint_nothing_is_copied() -> None:
    endpoints = store()
    finder = CandidateFinder(endpoints)
    assert finder.find({}) is endpoints.snapshot().candidates


def scraped(at_s: dict[str, float]) -> EndpointStore:
    """The endpoints, scraped at these times."""
    endpoints = store()
    for endpoint in list(endpoints):
        if endpoint.name in at_s:
            endpoints.set_metrics(endpoint.id, EndpointMetrics(waiting_queue=1), at_s[endpoint.name])
    return endpoints


@pytest.mark.parametrize(
    ("at_s", "metadata", "names"),
    [
        pytest.param({}, {}, "", id="none was scraped"),
        pytest.param({"B": 1.0, "D": 1.0}, {}, "BD", id="two were"),
        pytest.param({"B": 1.0, "D": 1.0}, hint(["192.168.1.3"]), "D", id="and the hint names one"),
        pytest.param({"B": 1.0}, hint(["192.168.1.1"]), "", id="and the hint names none"),
    ],
)
def test_unscraped_endpoints_can_be_held_back(at_s: dict[str, float], metadata: Metadata, names: str) -> None:
    assert found(CandidateFinder(scraped(at_s), hold_back_unscraped=True), metadata) == names


def test_a_scrape_ends_holding_back() -> None:
    endpoints = store()
    finder = CandidateFinder(endpoints, hold_back_unscraped=True)
    assert found(finder, {}) == ""
    endpoints.set_metrics(next(iter(endpoints)).id, UNSCRAPED, 1.0)
    assert found(finder, {}) == "A"


@pytest.mark.parametrize(
    ("at_s", "metadata", "names"),
    [
        pytest.param({}, {}, ALL, id="none was scraped"),
        pytest.param({"A": 10.0, "B": 4.9}, {}, "ACDEV", id="one is stale"),
        pytest.param({"A": 10.0, "B": 5.0}, {}, ALL, id="one is just not"),
        pytest.param({"A": 10.0, "B": 5.0, "C": 4.9}, {}, "ABDEV", id="one is just not, another is"),
        pytest.param(dict.fromkeys(ALL, 1.0), {}, ALL, id="all are: scraping is broken, not the servers"),
        pytest.param({"A": 10.0, "B": 1.0}, hint(["192.168.1.1", "192.168.1.2"]), "A", id="one of the hint"),
        pytest.param({"A": 10.0, "B": 1.0}, hint(["192.168.1.2"]), "B", id="all of the hint"),
    ],
)
def test_stale_endpoints_can_be_held_back(at_s: dict[str, float], metadata: Metadata, names: str) -> None:
    finder = CandidateFinder(scraped(at_s), hold_back_stale_s=5.0, clock=FakeClock(10.0))
    assert found(finder, metadata) == names


def test_endpoints_get_stale_and_fresh_again() -> None:
    endpoints = scraped(dict.fromkeys(ALL, 10.0))
    clock = FakeClock(10.0)
    finder = CandidateFinder(endpoints, hold_back_stale_s=5.0, clock=clock)
    first = next(iter(endpoints)).id
    assert found(finder, {}) == ALL
    clock.advance(5.5)
    endpoints.set_metrics(first, EndpointMetrics(waiting_queue=1), 15.0)
    assert found(finder, {}) == "A"
    clock.advance(5.0)
    assert found(finder, {}) == ALL


HINT = ["192.168.1.1", "192.168.1.3"]


def test_the_same_hint_gives_the_same_candidates_until_a_metric_changes() -> None:
    endpoints = scraped({"A": 1.0})
    finder = CandidateFinder(endpoints)
    first = finder.find(hint(HINT))
    assert finder.find(hint(list(HINT))) is first
    assert finder.find(hint(HINT[:1])) is not first
    endpoints.set_metrics(first[0].id, EndpointMetrics(waiting_queue=1), 2.0)
    assert finder.find(hint(HINT)) is first, "only the age has changed"
    assert first.updated_s[0] == 2.0
    endpoints.set_metrics(first[0].id, EndpointMetrics(waiting_queue=2), 3.0)
    assert finder.find(hint(HINT)).waiting_queue[0] == 2


def test_a_text_and_a_list_are_different_hints() -> None:
    finder = CandidateFinder(store())
    assert found(finder, hint("192.168.1.1,192.168.1.2")) == "AB"
    assert found(finder, hint(["192.168.1.1,192.168.1.2"])) == ""


def test_few_hints_are_remembered() -> None:
    endpoints = store()
    finder = CandidateFinder(endpoints)
    first = finder.find(hint(HINT))
    for number in range(MAX_HINTS - 1):
        finder.find(hint(["192.168.1.1", f"10.0.0.{number}"]))
    assert finder.find(hint(HINT)) is first
    finder.find(hint(["192.168.1.1", "10.0.1.1"]))
    assert finder.find(hint(HINT)) is not first


def test_what_is_not_stale_is_the_same_object_until_another_gets_stale() -> None:
    endpoints = scraped({"A": 10.0, "B": 1.0})
    clock = FakeClock(10.0)
    finder = CandidateFinder(endpoints, hold_back_stale_s=5.0, clock=clock)
    first = finder.find({})
    clock.advance(1.0)
    assert finder.find({}) is first
    assert finder.find(hint(["192.168.1.1", "192.168.1.2"])) is finder.find(hint(["192.168.1.1", "192.168.1.2"]))
    endpoints.set_metrics(endpoints.snapshot().endpoints[1].id, EndpointMetrics(waiting_queue=1), 11.0)
    assert found(finder, {}) == ALL
