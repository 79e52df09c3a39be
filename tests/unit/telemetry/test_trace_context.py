"""Which requests are traced, and the header that says so."""

from __future__ import annotations

import pytest

from epp.telemetry.trace_context import Parent, Sampler, format_traceparent, make_sampler, parse_traceparent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"
LOW_HALF = int(TRACE, 16) & (2**64 - 1)


@pytest.mark.parametrize(
    ("text", "parent"),
    [
        pytest.param(SAMPLED, Parent(int(TRACE, 16), int(SPAN, 16), True), id="sampled"),
        pytest.param(UNSAMPLED, Parent(int(TRACE, 16), int(SPAN, 16), False), id="not sampled"),
        pytest.param(f" {SAMPLED} ", Parent(int(TRACE, 16), int(SPAN, 16), True), id="blanks around it"),
        pytest.param(f"00-{TRACE}-{SPAN}-03", Parent(int(TRACE, 16), int(SPAN, 16), True), id="more flags"),
        pytest.param(f"01-{TRACE}-{SPAN}-01-what", Parent(int(TRACE, 16), int(SPAN, 16), True), id="a later version"),
        pytest.param(f"00-{TRACE}-{SPAN}-01-what", None, id="version 00 has four parts"),
        pytest.param(f"ff-{TRACE}-{SPAN}-01", None, id="no version"),
        pytest.param(f"00-{'0' * 32}-{SPAN}-01", None, id="no trace"),
        pytest.param(f"00-{TRACE}-{'0' * 16}-01", None, id="no span"),
        pytest.param(SAMPLED.upper().replace("00-", "00-", 1), None, id="upper case"),
        pytest.param("nonsense", None, id="nonsense"),
        pytest.param("", None, id="empty"),
        pytest.param(None, None, id="absent"),
    ],
)
def test_traceparent(text: str | None, parent: Parent | None) -> None:
    assert parse_traceparent(text) == parent


def test_the_header_of_a_span() -> None:
    assert format_traceparent(int(TRACE, 16), int(SPAN, 16)) == SAMPLED


@pytest.mark.parametrize(
    ("name", "ratio", "sampled", "unsampled", "without"),
    [
        ("always_on", 0.0, True, True, True),
        ("always_off", 1.0, False, False, False),
        ("traceidratio", 1.0, True, True, True),
        ("traceidratio", 0.0, False, False, False),
        ("parentbased_always_on", 0.0, True, False, True),
        ("parentbased_always_off", 1.0, True, False, False),
        ("parentbased_traceidratio", 1.0, True, False, True),
        ("parentbased_traceidratio", 0.0, True, False, False),
    ],
)
def test_samplers(name: str, ratio: float, sampled: bool, unsampled: bool, without: bool) -> None:
    sampler = Sampler(name, ratio)
    for header, expected in ((SAMPLED, sampled), (UNSAMPLED, unsampled), (None, without), ("nonsense", without)):
        assert (sampler.sample(header) is not None) is expected, header


@pytest.mark.parametrize(("more", "expected"), [(1, True), (0, False), (-1, False)])
def test_the_ratio_is_of_the_right_half_of_trace_ids_as_every_other_service_has_it(more: int, expected: bool) -> None:
    sampler = Sampler("traceidratio", 0.5, draw=lambda: (7 << 64) + 2**63 - more)
    found = sampler.sample(None)
    assert (found is not None) is expected
    if found is not None:
        assert (found.trace_id, found.parent) == ((7 << 64) + 2**63 - more, None)


def test_a_share_is_sampled() -> None:
    sampler = Sampler("parentbased_traceidratio", 0.1)
    assert 300 < sum(sampler.sample(None) is not None for _ in range(5000)) < 700


@pytest.mark.parametrize(
    ("environ", "samples_all", "told"),
    [
        pytest.param({}, False, [], id="a tenth"),
        pytest.param({"OTEL_TRACES_SAMPLER": "always_on"}, True, [], id="all"),
        pytest.param({"OTEL_TRACES_SAMPLER_ARG": "1"}, True, [], id="a ratio"),
        pytest.param(
            {"OTEL_TRACES_SAMPLER": "jaeger_remote"}, False, ["OTEL_TRACES_SAMPLER=jaeger_remote is not known"], id="odd"
        ),
        pytest.param(
            {"OTEL_TRACES_SAMPLER_ARG": "lots"},
            False,
            ["OTEL_TRACES_SAMPLER_ARG=lots is no number from 0 to 1; 0.1"],
            id="no ratio",
        ),
        pytest.param({"OTEL_TRACES_SAMPLER_ARG": "2"}, False, ["OTEL_TRACES_SAMPLER_ARG=2 is no"], id="above 1"),
    ],
)
def test_the_sampler_of_the_environment(environ: dict[str, str], samples_all: bool, told: list[str]) -> None:
    problems: list[str] = []
    sampler = make_sampler(environ, problems.append)
    assert all(sampler.sample(None) for _ in range(200)) is samples_all
    assert len(problems) == len(told)
    assert all(problem.startswith(text) for problem, text in zip(problems, told, strict=True))
