"""Latency objectives in request headers."""

from __future__ import annotations

import pytest

from epp.framework.testing import FakeHeaders
from plugins.shared.slo_headers import Objectives, read_objectives


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param({}, (0.0, 0.0), id="none"),
        pytest.param({"x-slo-ttft-ms": "200", "x-slo-tpot-ms": "12.5"}, (200.0, 12.5), id="names of Heimdall"),
        pytest.param({"x-llm-d-slo-ttft-ms": "200", "x-llm-d-slo-tpot-ms": "12.5"}, (200.0, 12.5), id="names of llm-d"),
        pytest.param({"x-llm-d-slo-ttft-ms": "1", "x-slo-ttft-ms": "2"}, (1.0, 0.0), id="both names: llm-d's"),
        pytest.param({"x-slo-ttft-ms": " 250 ", "x-slo-tpot-ms": "1e2"}, (250.0, 100.0), id="blanks and exponents"),
        pytest.param({"x-slo-ttft-ms": "soon", "x-slo-tpot-ms": "10ms"}, (0.0, 0.0), id="no numbers"),
        pytest.param({"x-slo-ttft-ms": "-1", "x-slo-tpot-ms": "0"}, (0.0, 0.0), id="not positive"),
        pytest.param({"x-slo-ttft-ms": "inf", "x-slo-tpot-ms": "nan"}, (0.0, 0.0), id="not finite"),
        pytest.param({"x-slo-ttft-ms": "1_000", "x-slo-tpot-ms": ""}, (0.0, 0.0), id="Python's own notation; empty"),
    ],
)
def test_objectives(headers: dict[str, str], expected: tuple[float, float]) -> None:
    assert read_objectives(FakeHeaders(headers)) == Objectives(*expected)


@pytest.mark.usefixtures("debug_log")
def test_what_is_ignored_is_said_in_the_debug_log(caplog: pytest.LogCaptureFixture) -> None:
    read_objectives(FakeHeaders({"x-slo-ttft-ms": "soon"}))
    [record] = caplog.records
    assert record.getMessage() == "latency objective ignored, the header is no positive number"
    assert record.__dict__["fields"] == {"header": "x-slo-ttft-ms", "value": "soon"}
