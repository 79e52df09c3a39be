"""header-label-affinity-scorer and header-based-testing-filter."""

from __future__ import annotations

import pytest

from epp.framework.candidates import Candidates
from epp.framework.testing import make_candidates, make_plugin, make_request
from epp.framework.types import Endpoint
from plugins.filters import header_based_testing
from plugins.scorers import header_label_affinity


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param({"x-zone": "east"}, [1, 0, 0], id="equal"),
        pytest.param({"x-zone": "East"}, [0, 0, 0], id="case counts"),
        pytest.param({"x-zone": ""}, [0, 0, 0], id="an empty header is none"),
        pytest.param({}, [0, 0, 0], id="no header"),
    ],
)
def test_header_label_affinity(headers: dict[str, str], expected: list[float]) -> None:
    scorer = make_plugin(header_label_affinity.PLUGIN, {"headerName": "X-Zone", "labelKey": "zone"})
    candidates = make_candidates(3, [{"zone": "east"}, {"zone": ""}, {}])
    assert scorer.score(make_request(headers=headers), candidates) == expected


ENDPOINTS = [
    Endpoint.of("a", "192.168.1.1", 8000),
    Endpoint.of("b", "192.168.1.2", 8000),
    Endpoint.of("c", "192.168.1.2", 8001),
    Endpoint.of("d", "fd00::1", 8000),
    Endpoint.of("e", "server.local", 8000),
]
CANDIDATES = Candidates(ENDPOINTS, make_candidates(len(ENDPOINTS)).metrics)


@pytest.mark.parametrize(
    ("header", "names"),
    [
        ("192.168.1.2:8001", "c"),
        ("192.168.1.2", "bc"),
        ("192.168.1.2,192.168.1.1", "bca"),
        (" 192.168.1.1 , 192.168.1.1:8000 ,, 192.168.1.2:8000 ", "ab"),
        ("[fd00::1]:8000", "d"),
        ("[fd00::1]", "d"),
        ("fd00:0::1", "d"),
        ("[fd00::1]:8001", ""),
        ("server.local:8000", "e"),
        ("server.local", "e"),
        ("192.168.1.9", ""),
        ("192.168.1.1:", ""),
        ("192.168.1.1:http", ""),
        (",", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_header_based_testing(header: str | None, names: str) -> None:
    request = make_request(headers={"test-epp-endpoint-selection": header} if header is not None else {})
    kept = make_plugin(header_based_testing.PLUGIN).filter(request, CANDIDATES)
    assert "".join(endpoint.name for endpoint in kept) == names
