"""Pages of the picker → findings."""

from __future__ import annotations

from typing import Any

import pytest

from epp.doctor.configuration import check_configuration
from epp.doctor.known import KvEventSettings, Picker, picker_of
from epp.doctor.picker import PickerPages, check_picker
from epp.doctor.pool import check_pool

URL = "http://picker:9090"
PLUGIN = 'extension_point="Scorer",plugin_type="t",plugin_name="slow"'


def handovers(quick: int, late: int) -> str:
    """The histogram of so many calls below and above 25 ms."""
    name = "extproc_handover_duration_seconds"
    bounds = [("0.01", quick - 1), ("0.025", quick), ("0.05", quick + late), ("+Inf", quick + late)]
    lines = [f'{name}_bucket{{le="{bound}"}} {count}' for bound, count in bounds]
    return "\n".join([*lines, f"{name}_sum 1", f"{name}_count {quick + late}"])


SERIES: list[tuple[str, str, set[str]]] = [
    ("nothing", "", set()),
    ("nothing is skipped", f"plugin_skipped{{{PLUGIN}}} 0", set()),
    ("skipped now", f"plugin_skipped{{{PLUGIN}}} 1\nplugin_skipped_calls_total{{{PLUGIN}}} 5", {"PCK003"}),
    ("skipped before", f"plugin_skipped{{{PLUGIN}}} 0\nplugin_skipped_calls_total{{{PLUGIN}}} 5", {"PCK004"}),
    ("a plugin raised", f"plugin_errors_total{{{PLUGIN}}} 1", {"PCK005"}),
    ("no plugin raised", f"plugin_errors_total{{{PLUGIN}}} 0", set()),
    ("calls that are in time", f"plugin_duration_seconds_count{{{PLUGIN}}} 100\nplugin_overruns_total{{{PLUGIN}}} 1", set()),
    ("calls that are late", f"plugin_duration_seconds_count{{{PLUGIN}}} 100\nplugin_overruns_total{{{PLUGIN}}} 2", {"PCK014"}),
    ("a few calls", f"plugin_duration_seconds_count{{{PLUGIN}}} 19\nplugin_overruns_total{{{PLUGIN}}} 9", set()),
    ("loaded", "config_last_reload_successful 1", set()),
    ("not loaded", "config_last_reload_successful 0", {"PCK006"}),
    ("a quick loop", handovers(990, 9), set()),
    ("a late loop", handovers(980, 20), {"PCK012"}),
    ("a late loop with few calls", handovers(10, 9), set()),
    ("room for bodies", f"extproc_buffered_bytes {0.7 * 2**30}", set()),
    ("little room for bodies", f"extproc_buffered_bytes {0.9 * 2**30}", {"PCK008"}),
    ("prefixes as predicted", 'prefix_cache_mismatch{endpoint_name="a",namespace="n",plugin_name="p"} 0', set()),
    ("prefixes not as predicted", 'prefix_cache_mismatch{endpoint_name="a",namespace="n",plugin_name="p"} 1', {"PCK009"}),
    ("few decisions", 'scheduler_attempts_total{status="failure"} 19', set()),
    (
        "decisions that mostly succeed",
        'scheduler_attempts_total{status="failure"} 1\nscheduler_attempts_total{status="success",endpoint_name="a"} 99',
        set(),
    ),
    (
        "decisions that often fail",
        'scheduler_attempts_total{status="failure"} 6\nscheduler_attempts_total{status="success",endpoint_name="a"} 94',
        {"PCK010"},
    ),
]


@pytest.mark.parametrize(("series", "expected"), [case[1:] for case in SERIES], ids=[case[0] for case in SERIES])
def test_metrics_of_the_picker(series: str, expected: set[str]) -> None:
    page = "".join(f"llm_d_epp_{line}\n" for line in series.splitlines()).encode()
    pages = PickerPages(URL, metrics=page)
    findings = [*check_picker(pages), *check_configuration(pages)]
    assert {found.code for found in findings} == expected
    assert all(found.fix and found.file == URL for found in findings)


SHADOW: dict[str, Any] = {"enabled": True, "compared": 90, "skipped": {}, "plugin_errors": {}, "restart": []}
ENDED = {**SHADOW, "enabled": False, "problem": "so, 2026-01-01T00:00:00+00:00", "skipped": {"queue full": 90}}
PAGES: list[tuple[str, PickerPages, set[str]]] = [
    ("ready", PickerPages(URL, ready={"status": "ready", "reasons": []}), set()),
    ("draining", PickerPages(URL, ready={"status": "not ready", "reasons": ["draining"]}), {"PCK001"}),
    ("a follower", PickerPages(URL, ready={"reasons": ["not the leader"]}), {"PCK020"}),
    ("a follower without a pool", PickerPages(URL, ready={"reasons": ["pool: x", "not the leader"]}), {"PCK001"}),
    ("quick", PickerPages(URL, response_s=0.099), set()),
    ("late", PickerPages(URL, response_s=0.101), {"PCK002"}),
    ("clock a little ahead", PickerPages(URL, skew_s=4.9), set()),
    ("clock ahead", PickerPages(URL, skew_s=5.1), {"PCK011"}),
    ("clock behind", PickerPages(URL, skew_s=-300.0), {"PCK011"}),
    ("a warning", PickerPages(URL, config={"findings": [{"code": "WRN001", "severity": "warning", "fix": "f"}]}), {"PCK007"}),
    ("a note", PickerPages(URL, config={"findings": [{"code": "INF001", "severity": "info", "path": "p"}]}), set()),
    ("nothing reloaded", PickerPages(URL, config={"reload": None}), set()),
    ("reloaded", PickerPages(URL, config={"reload": {"result": "success", "problems": []}}), set()),
    ("not reloaded", PickerPages(URL, config={"reload": {"result": "failure", "problems": ["CFG001: x"]}}), {"PCK006"}),
    (
        "restart required",
        PickerPages(
            URL,
            config={"reload": {"result": "restart_required", "problems": ["dataLayer"]}},
            metrics=b"llm_d_epp_config_last_reload_successful 0\n",
        ),
        {"PCK013"},
    ),
    ("no shadow", PickerPages(URL, shadow={"enabled": False, "problem": ""}), set()),
    ("a shadow", PickerPages(URL, shadow=SHADOW), set()),
    ("a shadow that is in use", PickerPages(URL, shadow={**ENDED, "state": "taken_over"}), set()),
    ("no shadow any more", PickerPages(URL, shadow={**ENDED, "state": "not_started"}), {"PCK015"}),
    ("a shadow that fails", PickerPages(URL, shadow={**SHADOW, "plugin_errors": {"p": 3}}), {"PCK016"}),
    ("a shadow that sees little", PickerPages(URL, shadow={**SHADOW, "skipped": {"queue full": 20}}), {"PCK017"}),
    ("a shadow that sees most", PickerPages(URL, shadow={**SHADOW, "skipped": {"queue full": 5}}), set()),
    ("a shadow for later", PickerPages(URL, shadow={**SHADOW, "restart": ["dataLayer"]}), {"PCK018"}),
    ("nothing kept", PickerPages(URL, kept={"decisions": []}, metrics=b"llm_d_epp_request_total 1000\n"), {"PCK019"}),
    ("one kept", PickerPages(URL, kept={"decisions": [{}]}, metrics=b"llm_d_epp_request_total 1000\n"), set()),
    ("few requests", PickerPages(URL, kept={"decisions": []}, metrics=b"llm_d_epp_request_total 999\n"), set()),
    (
        "pages of another shape",
        PickerPages(URL, ready={"reasons": 1}, config={"findings": {"a": 1}, "reload": 5}, shadow={"skipped": 1}, kept={}),
        set(),
    ),
]


@pytest.mark.parametrize(("pages", "expected"), [case[1:] for case in PAGES], ids=[case[0] for case in PAGES])
def test_pages_of_the_picker(pages: PickerPages, expected: set[str]) -> None:
    findings = [*check_picker(pages), *check_configuration(pages)]
    assert {found.code for found in findings} == expected
    assert all(found.fix and found.file == URL for found in findings)


def test_what_is_known_of_a_finding_is_told_with_it() -> None:
    page = b'llm_d_epp_prefix_cache_mismatch{endpoint_name="a",namespace="n",plugin_name="p"} 1\n'
    known = {"producer": "p", "mismatch": "no-hits", "likelyCause": "cache disabled: see its flags"}
    [found] = check_picker(PickerPages(URL, metrics=page, endpoints={"endpoints": [{"id": "n/a", "cachedPrefixes": [known]}]}))
    assert found.message.endswith("(no-hits); likely cause: cache disabled: see its flags")
    [found] = check_configuration(PickerPages(URL, config={"reload": {"result": "failure", "problems": ["CFG001: x"]}}))
    assert found.message.endswith("is in use: CFG001: x")


def endpoint(name: str = "a", age: object = 0.02, port: int = 8000, queue: object = 0, **scraping: Any) -> dict[str, Any]:
    """An entry of ``/debug/endpoints``."""
    return {
        "id": f"default/{name}",
        "address": f"10.0.0.1:{port}",
        "ageSeconds": age,
        "waitingQueue": queue,
        "scraping": {"failing": False, "lastError": "", "missingValues": [], **scraping},
    }


POOLS: list[tuple[str, list[dict[str, Any]], list[str]]] = [
    ("no endpoint", [], ["POL001"]),
    ("fresh ones", [endpoint("a"), endpoint("b", port=8001)], []),
    ("just fresh", [endpoint(age=2.0)], []),
    ("one stale", [endpoint("a"), endpoint("b", 2.1, 8001, failing=True, lastError="refused")], ["POL004"]),
    ("one never read", [endpoint("a"), endpoint("b", None, 8001, None)], ["POL003"]),
    ("all never read", [endpoint("a", None, 8000, None)], ["POL002", "POL003"]),
    ("all stale", [endpoint("a", 9.0), endpoint("b", 9.0, 8001)], ["POL002", "POL004", "POL004"]),
    ("values that miss", [endpoint(missingValues=["vllm:x is not on the page"])], ["POL005"]),
    ("the same address", [endpoint("a"), endpoint("b")], ["POL006"]),
    ("one of two waits", [endpoint("a", queue=3), endpoint("b", port=8001)], []),
    ("all wait", [endpoint("a", queue=3), endpoint("b", port=8001, queue=1)], ["POL007"]),
    ("no state of scraping", [{"id": "default/a", "address": "10.0.0.1:1", "ageSeconds": 0.1, "scraping": None}], []),
]


@pytest.mark.parametrize(("entries", "expected"), [case[1:] for case in POOLS], ids=[case[0] for case in POOLS])
def test_endpoints_of_the_picker(entries: list[dict[str, Any]], expected: list[str]) -> None:
    findings = check_pool(URL, {"endpoints": entries}, stale_s=2.0)
    assert [found.code for found in findings] == expected
    assert all(found.fix and found.file == URL for found in findings)


def test_the_last_error_is_told_only_while_it_lasts() -> None:
    def message(**scraping: Any) -> str:
        [found] = check_pool(URL, {"endpoints": [endpoint("b", port=1), endpoint(age=9.0, **scraping)]}, stale_s=2.0)
        return found.message

    assert "refused" in message(failing=True, lastError="refused")
    assert "refused" not in message(failing=False, lastError="refused")


def plugin(kind: str, **parameters: Any) -> dict[str, Any]:
    return {"type": kind, "name": "p", "parameters": parameters}


DOCUMENTS: list[tuple[str, dict[str, Any], Picker]] = [
    ("empty", {}, Picker()),
    ("several addresses", {"plugins": [plugin("max-score-picker", maxNumOfEndpoints=3)]}, Picker(max_endpoints=3)),
    ("LoRA", {"plugins": [{"type": "lora-affinity-scorer", "name": "l"}]}, Picker(scores_lora=True)),
    (
        "queue",
        {"featureGates": ["flowControl"], "flowControl": {"defaultRequestTTL": "1m30s"}},
        Picker(queue_ttl_s=90.0),
    ),
    ("queue without end", {"featureGates": ["flowControl"], "flowControl": {"defaultRequestTTL": "0s"}}, Picker()),
    ("queue that is off", {"flowControl": {"defaultRequestTTL": "1m30s"}}, Picker()),
    (
        "KV events by default",
        {"plugins": [plugin("precise-prefix-cache-scorer")]},
        Picker(kv_events=(KvEventSettings("p", 5557, connects=True, topic="kv@", block_size=16),)),
    ),
    (
        "KV events as written",
        {
            "plugins": [
                plugin(
                    "of-another-package",
                    kvEventsConfig={"topicFilter": "x", "discoverPods": False, "podDiscoveryConfig": {"socketPort": 6000}},
                    tokenProcessorConfig={"blockSize": 32, "blockSizeTokens": 0},
                )
            ]
        },
        Picker(kv_events=(KvEventSettings("p", 6000, connects=False, topic="x", block_size=32),)),
    ),
    (
        "block size at its older place",
        {"plugins": [plugin("precise-prefix-cache-scorer", indexerConfig={"tokenProcessorConfig": {"blockSizeTokens": 64}})]},
        Picker(kv_events=(KvEventSettings("p", 5557, connects=True, topic="kv@", block_size=64),)),
    ),
]


@pytest.mark.parametrize(("document", "expected"), [case[1:] for case in DOCUMENTS], ids=[case[0] for case in DOCUMENTS])
def test_what_the_configuration_tells_of_the_picker(document: dict[str, Any], expected: Picker) -> None:
    assert picker_of(document) == expected


def test_the_longest_wait_is_that_of_any_band() -> None:
    document = {"featureGates": ["flowControl"], "flowControl": {"defaultRequestTTL": "1m"}}
    assert picker_of(document, 90.0).queue_ttl_s == 90.0
    assert picker_of(document, 30.0).queue_ttl_s == 60.0
    assert picker_of({}, None).queue_ttl_s is None


def covered() -> set[str]:
    """Codes that a case of this module expects."""
    return set().union(*(case[2] for case in (*SERIES, *PAGES, *POOLS)))
