"""Decisions in the log: nothing at verbosity 2, what ran at 3, every score at 4."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from epp.errors import SchedulingError
from epp.framework import log
from epp.framework.testing import make_candidates, make_request
from epp.telemetry.decision_log import LoggedDecisions
from epp.telemetry.decision_record import DecisionRecord
from tests.unit.scheduling.doubles import Does, Handler, keep, make_profile, make_scheduler

A, B, C = "192.168.1.1:8000", "192.168.1.2:8000", "192.168.1.3:8000"
Line = tuple[str, dict[str, object]]


@pytest.fixture(autouse=True)
def _verbosity() -> Iterator[None]:
    before = log.verbosity()
    yield
    log.set_verbosity(before)


def decided() -> DecisionRecord:
    scheduler = make_scheduler(
        Handler(["prefill", "decode"], primary="decode"),
        make_profile("decode", filters=[keep("a", "b")], scorers=[(Does([0.25, 1 / 3]), 2.0), (Does(OSError("disk")), 1.0)]),
        make_profile("prefill", filters=[Does(OSError("no label"))]),
    )
    record = DecisionRecord()
    scheduler.schedule(make_request(request_id="r-1", model="m", target_model="t"), make_candidates(3), record)
    return record


def lines(caplog: pytest.LogCaptureFixture, record: DecisionRecord, verbosity: int) -> list[Line]:
    log.set_verbosity(verbosity)
    caplog.clear()
    LoggedDecisions().decided(record)
    assert {r.request_id for r in caplog.records} <= {"r-1"}  # type: ignore[attr-defined]  # set by our logger
    return [(r.getMessage(), r.fields) for r in caplog.records]  # type: ignore[attr-defined]  # as above


@pytest.mark.parametrize(("verbosity", "wanted"), [(0, False), (2, False), (3, True), (5, True)])
def test_records_are_made_only_while_somebody_reads_them(verbosity: int, wanted: bool) -> None:
    log.set_verbosity(verbosity)
    assert LoggedDecisions().wants(None) is wanted


def test_at_3_what_ran(caplog: pytest.LogCaptureFixture) -> None:
    assert lines(caplog, decided(), 3) == [
        ("Running filter plugins", {"plugin": "f1", "profile": "prefill", "before": 3, "after": 3, "error": "no label"}),
        ("Profile failed", {"profile": "prefill", "error": "filter 'f1' failed in profile 'prefill'"}),
        ("Running filter plugins", {"plugin": "f1", "profile": "decode", "before": 3, "after": 2}),
        ("Running scorer plugin", {"plugin": "s1", "profile": "decode"}),
        ("Running scorer plugin", {"plugin": "s2", "profile": "decode", "error": "disk"}),
        ("Running picker plugin", {"plugin": "picker", "profile": "decode", "picked": B}),
        (
            "Request handled",
            {"model": "m", "targetModel": "t", "endpoint": B, "profile": "decode", "candidates": 3},
        ),
    ]


def test_at_4_every_score_and_every_dropped_endpoint(caplog: pytest.LogCaptureFixture) -> None:
    shown = lines(caplog, decided(), 4)
    assert [fields for message, fields in shown if message == "Calculated score"] == [
        {"plugin": "s1", "endpoint": A, "score": 0.25, "weight": 2.0},
        {"plugin": "s1", "endpoint": B, "score": 0.333333, "weight": 2.0},
    ]
    assert [fields for message, fields in shown if message == "Filtered out"] == [{"plugin": "f1", "endpoints": C}]


def test_a_request_that_found_nothing_is_one_line_with_its_error(caplog: pytest.LogCaptureFixture) -> None:
    record = DecisionRecord()
    with pytest.raises(SchedulingError):
        make_scheduler(Handler()).schedule(make_request(request_id="r-1", model="m"), make_candidates(1), record)
    ((message, fields),) = lines(caplog, record, 3)
    assert (message, fields["endpoint"], fields["error"]) == (
        "Request handled",
        "",
        "failed to run any scheduler profile for request r-1",
    )
