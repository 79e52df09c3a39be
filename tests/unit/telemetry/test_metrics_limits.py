"""What clients choose makes neither more series than allowed nor broken ones."""

from __future__ import annotations

import pytest

from epp.errors import ErrorCode
from epp.telemetry import requests
from epp.telemetry.metrics import AttemptLabels, Metrics, MetricsOptions
from epp.telemetry.requests import RequestLabels
from tests.unit.telemetry.events import one_request
from tests.unit.telemetry.scrape import samples, value


def test_model_names_above_the_limit_fold_and_those_of_rewrites_do_not() -> None:
    metrics = Metrics(MetricsOptions(model_name_limit=2))
    metrics.admit_model_names(["from-a-rule"])
    for model in ("a", "b", "c", "d", "from-a-rule", "a"):
        one_request(metrics, labels=RequestLabels(model))
    totals = {
        model: value(metrics, "llm_d_epp_request_total", model_name=model, target_model_name=model)
        for model in ("a", "b", "c", "from-a-rule", "other")
    }
    assert totals == {"a": 2, "b": 1, "c": None, "from-a-rule": 1, "other": 2}
    assert value(metrics, "inference_objective_request_total", model_name="other") == 2


def test_incoming_and_target_names_share_one_limit() -> None:
    metrics = Metrics(MetricsOptions(model_name_limit=2))
    metrics.request_scheduled(RequestLabels("a", "a-target"))
    metrics.scheduler_attempt(AttemptLabels(False, "b"), 0.001)
    assert value(metrics, "llm_d_epp_scheduler_attempts_total", target_model_name="other") == 1


@pytest.mark.parametrize(("limit", "expected"), [(0, {"other"}), (1, {"a", "other"}), (5, {"a", "b", "c"})])
def test_fairness_ids_above_the_limit_fold(limit: int, expected: set[str]) -> None:
    metrics = Metrics(MetricsOptions(fairness_id_limit=limit))
    for fairness_id in ("a", "b", "c"):
        metrics.request_scheduled(RequestLabels("m", "m", fairness_id))
    shown = {
        dict(labels)["fairness_id"]
        for name, labels in samples(metrics.exposition())
        if name.endswith("request_total") and "epp" in name
    }
    assert shown == expected


def test_nothing_grows_with_what_clients_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "MAX_COMBINATIONS", 5)
    metrics = Metrics()
    metrics.watch_requests(dict)
    for number in range(50):
        labels = RequestLabels(f"m{number % 7}", "", f"tenant-{number}")
        one_request(metrics, labels=labels)
        metrics.request_error(labels, ErrorCode.INTERNAL)
    page = samples(metrics.exposition())
    totals = {labels: count for (name, labels), count in page.items() if name == "llm_d_epp_request_total"}
    assert len(totals) == 6
    assert sum(totals.values()) == 50
    assert sum(count for (name, _), count in page.items() if name == "llm_d_epp_request_error_total") == 50
    running = [count for (name, _), count in page.items() if name == "llm_d_epp_request_running"]
    assert running == [0] * 6


def test_odd_bytes_and_long_names_do_no_harm() -> None:
    metrics = Metrics()
    labels = RequestLabels('bad\udcff"name\\\n', "x" * 1000, "\ud800")
    one_request(metrics, labels=labels)
    shown = {"model_name": 'bad\ufffd"name\\\n', "target_model_name": "x" * 256, "fairness_id": "\ufffd"}
    assert value(metrics, "llm_d_epp_request_total", **shown) == 1
