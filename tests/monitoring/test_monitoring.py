"""Every query of our dashboards and alerts against a real scrape by a real Prometheus, and the series that others query."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from epp.demo.picker import PickerProcess
from epp.telemetry.catalogue import CATALOGUE, PREFIX, Kind
from epp.telemetry.legacy_names import LEGACY
from tests.monitoring.conftest import Prometheus

with_prometheus = pytest.mark.asyncio(loop_scope="package")

FOLDER = Path(__file__).parents[2] / "config" / "monitoring"
DASHBOARDS = sorted(FOLDER.glob("*.json"))
VALUES = {"$__rate_interval": "20s", "$job": "epp", "$model": ".*"}
QUIET = re.compile(
    rf"{PREFIX}(flow_control_|kv_cache_|prefix_indexer_|plugin_(errors|skipped)|request_(predicted|slo)|"
    r"shadow_(plugin_errors|skipped))"
)
"""Families that this picker has no reason to show: what it does not use, and what does not go wrong."""


def queries(dashboard: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(panel, expression)."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for annotation in dashboard["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]


def filled(expression: str) -> str:
    """With values for Grafana's variables."""
    for name, value in VALUES.items():
        expression = expression.replace(name, value)
    assert "$" not in expression
    return expression


ALL = [
    pytest.param(expression, id=f"{path.stem}: {panel} {number}")
    for path in DASHBOARDS
    for number, (panel, expression) in enumerate(queries(json.loads(path.read_text())))
]
RULES = [
    pytest.param(rule["expr"], id=rule["alert"])
    for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]


@with_prometheus
@pytest.mark.parametrize("expression", ALL)
async def test_a_query_of_a_dashboard_finds_something(expression: str, prometheus: Prometheus) -> None:
    found = await prometheus.query(filled(expression))
    if not QUIET.search(expression) and "changes(" not in expression:
        assert [sample for sample in found if sample["value"][1] != "NaN"], expression


@with_prometheus
@pytest.mark.parametrize("expression", RULES)
async def test_an_alert_is_computed_and_does_not_fire_on_a_good_day(expression: str, prometheus: Prometheus) -> None:
    found = await prometheus.query(expression)
    if "request_error_total" not in expression:  # a quarter of our requests fails on purpose
        assert found == []


def names_in(expression: str) -> set[str]:
    """The families of a query."""
    histograms = {metric.name for metric in CATALOGUE if metric.kind is Kind.HISTOGRAM}
    return {_family(name, histograms) for name in re.findall(rf"{PREFIX}\w+", expression)}


def _family(name: str, histograms: set[str]) -> str:
    base = re.sub(r"_(bucket|sum|count)$", "", name)
    return base if base in histograms else name


@pytest.mark.parametrize("expression", [*ALL, *RULES])
def test_a_query_names_families_that_exist(expression: str) -> None:
    known = {metric.name for metric in CATALOGUE}
    assert [name for name in names_in(expression) if name not in known] == []


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_can_be_imported(path: Path) -> None:
    dashboard = json.loads(path.read_text())
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    assert dashboard["uid"] == f"epp-{path.stem}"
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)\}?", json.dumps(dashboard["panels"])))
    assert used - {"__rate_interval"} <= variables
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        assert panel["type"] == "row" or panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_promtool_finds_the_alerts_right(promtool: str, monitoring: Path, tmp_path: Path) -> None:
    shutil.copy(monitoring / "alerts.yaml", tmp_path)
    shutil.copy(Path(__file__).with_name("alerts_test.yaml"), tmp_path)
    for words in (["check", "rules", "alerts.yaml"], ["test", "rules", "alerts_test.yaml"]):
        done = subprocess.run([promtool, *words], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


OTHERS = {
    "inference gateway dashboard": """
        inference_pool_average_kv_cache_utilization inference_pool_average_queue_size inference_pool_per_pod_queue_size
        inference_objective_request_total inference_objective_request_error_total inference_objective_request_duration_seconds
        inference_objective_request_sizes inference_objective_response_sizes inference_objective_input_tokens
        inference_objective_output_tokens""",
    "Heimdall dashboard": """
        inference_pool_ready_pods inference_objective_request_total inference_extension_scheduler_e2e_duration_seconds
        inference_objective_request_ttft_seconds inference_objective_request_tpot_seconds
        inference_objective_request_itl_seconds
        inference_objective_normalized_time_per_output_token_seconds inference_extension_info""",
    "KServe samples": """
        inference_extension_prefix_indexer_hit_ratio inference_extension_prefix_indexer_hit_bytes
        inference_extension_prefix_indexer_size inference_extension_plugin_duration_seconds
        llm_d_inference_scheduler_pd_decision_total inference_objective_request_total""",
    "llm-d autoscaling": "llm_d_epp_request_running inference_extension_scheduler_attempts_total",
}
"""Families that published dashboards and autoscalers query, as far as they are built.

Source: gateway-api-inference-extension: tools/dashboards, tools/alerts; mif: website, operations/monitoring; kserve:
docs/samples/llmisvc; llm-d-benchmark.
"""
BY_PLUGINS = ("prefix_indexer_", "pd_decision_total")
"""Shown once a plugin has something to show."""


@with_prometheus
@pytest.mark.parametrize("names", [pytest.param(text.split(), id=name) for name, text in OTHERS.items()])
async def test_others_find_their_series(names: list[str], picker: PickerProcess) -> None:
    url = f"http://127.0.0.1:{picker.metrics_port}/metrics"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        shown = set(re.findall(r"^# TYPE (\S+) ", await response.text(), re.MULTILINE))
    offered = {entry.name for entry in LEGACY}
    missing = [name for name in names if name not in shown]
    assert all(name in offered and any(part in name for part in BY_PLUGINS) for name in missing), missing
