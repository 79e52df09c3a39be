"""What the valid samples mean once they are completed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from epp.config.loaded import LoadedConfig
from tests.config.corpus import GOOD, load, split


def sample(number: str) -> Path:
    """The file of a sample, whose name says what it is about."""
    return next(path for path in GOOD if path.stem.startswith(f"{number}-"))


def named(numbers: Iterable[str]) -> list[str]:
    """Ids of tests: the names of the samples."""
    return [sample(number).stem for number in numbers]


def config(number: str) -> LoadedConfig:
    """A sample, completed."""
    return load(split(sample(number))[0]).config


def profiles(loaded: LoadedConfig) -> dict[str, list[tuple[str, float]]]:
    """Profile → (plugin, weight)."""
    return {profile.name: list(profile.plugins) for profile in loaded.profiles}


PICKER = ("max-score-picker", 1.0)
PROFILES = {
    "V01": ("single-profile-handler", {"default": [("queue-scorer", 1.0), PICKER]}),
    "V02": (
        "pd-profile-handler",
        {
            "prefill": [("prefill-filter", 1.0), ("queue-scorer", 1.0), ("kv-cache-utilization-scorer", 1.0), PICKER],
            "decode": [("decode-filter", 1.0), ("queue-scorer", 1.0), ("kv-cache-utilization-scorer", 1.0), PICKER],
        },
    ),
    "V09": ("single-profile-handler", {"default": [("prefix-cache-scorer", 2.5), ("queue-scorer", 1.0), PICKER]}),
    "V17": ("single-profile-handler", {"qwen": [("this-model", 1.0), ("load-aware-scorer", 1.0), PICKER]}),
    "V29": (
        "single-profile-handler",
        {
            "default": [
                ("gpu", 1.0),
                ("queue-scorer", 1.0),
                ("kv-cache-utilization-scorer", 1.0),
                ("weighted-random-picker", 1.0),
            ]
        },
    ),
    "V30": ("single-profile-handler", {"default": [PICKER]}),
    "V31": ("single-profile-handler", {"default": [("queue-scorer", 1.0), PICKER]}),
    "V43": (
        "single-profile-handler",
        {"default": [("queue-scorer", 1.0), ("kv-cache-scorer", 1.0), ("prefix-cache-scorer", 1.0), PICKER]},
    ),
}


@pytest.mark.parametrize(("number", "handler", "expected"), [(n, *v) for n, v in PROFILES.items()], ids=named(PROFILES))
def test_handler_and_profiles(number: str, handler: str, expected: dict[str, list[tuple[str, float]]]) -> None:
    loaded = config(number)
    assert loaded.handler == handler
    assert profiles(loaded) == expected


def test_v01_w1_has_everything_that_defaults_add() -> None:
    loaded = config("V01")
    assert loaded.added == (
        "metrics-data-source",
        "core-metrics-extractor",
        "fcfs-ordering-policy",
        "global-strict-fairness-policy",
        "static-usage-limit-policy",
        "utilization-detector",
        "openai-parser",
        "anthropic-parser",
        "vllmhttp-parser",
        "passthrough-parser",
    )
    assert loaded.parsers == ("openai-parser", "anthropic-parser", "vllmhttp-parser", "passthrough-parser")
    assert [(source.name, source.extractors) for source in loaded.sources] == [
        ("metrics-data-source", ("core-metrics-extractor",))
    ]
    assert loaded.detector == "utilization-detector"
    assert loaded.discovery is None


def test_v03_prefill_header_handler_is_the_type_with_its_new_name() -> None:
    assert config("V03").plugin("prefill-header-handler").type.type == "disagg-headers-handler"


def test_v05_decider_is_created_before_the_handler_that_names_it() -> None:
    order = config("V05").creation_order
    assert order.index("long-prompts") < order.index("disagg-profile-handler")


def test_v07_one_picker_is_added_for_three_profiles() -> None:
    loaded = config("V07")
    assert [profile.picker for profile in loaded.profiles] == ["max-score-picker"] * 3
    assert loaded.added.count("max-score-picker") == 1


def test_v09_the_producer_of_tokens_is_added() -> None:
    loaded = config("V09")
    assert "token-producer" in loaded.added
    order = loaded.creation_order
    assert order.index("token-producer") < order.index("approx-prefix-cache-producer") < order.index("prefix-cache-scorer")


def test_v16_weight_zero_is_kept() -> None:
    assert profiles(config("V16"))["default"] == [
        ("active-request-scorer", 0.5),
        ("load-aware-scorer", 1.5),
        ("running-requests-size-scorer", 0.0),
        ("weighted-random-picker", 1.0),
    ]


def test_v18_a_threshold_out_of_range_is_replaced_by_the_default() -> None:
    loaded = config("V18")
    params = loaded.plugin("utilization-detector").params.model_dump()
    assert params["queue_depth_threshold"] == 8
    assert params["kv_cache_util_threshold"] == 0.8


def test_v19_an_inline_detector_of_the_other_type() -> None:
    loaded = config("V19")
    assert loaded.detector is not None
    assert loaded.plugin(loaded.detector).type.type == "running-requests-detector"


def test_v20_flow_control() -> None:
    section = config("V20").flow_control
    assert section is not None
    assert section.max_bytes == 4 * 1024**3
    assert section.default_request_ttl_s == 30.0
    assert [(band.priority, band.max_bytes) for band in section.priority_bands] == [(10, None), (-10, 256 * 1024**2)]


def test_v21_quantities_gates_and_detector() -> None:
    loaded = config("V21")
    section = loaded.flow_control
    assert section is not None
    assert (section.max_bytes, section.max_requests) == (8 * 1024**3, 20_000)
    band = section.priority_bands[0]
    assert (band.max_requests, band.max_bytes) == (2000, 500 * 1024**2)
    assert (band.fairness_policy, band.ordering_policy) == ("rr", "edf")
    assert section.no_endpoint_request_ttl_s == 600.0
    assert loaded.detector == "conc"
    assert loaded.gates["haPopulateNonLeaderDatastore"] is False


SOURCES = {
    "V22": [("models-data-source", True), ("metrics-data-source", True)],
    "V23": [("models-data-source", False), ("metrics-data-source", True)],
    "V24": [("scrape", True)],
    "V25": [("metrics-data-source", True)],
    "V26": [],
    "V40": [("metrics-data-source", True)],
    "X52": [("metrics-data-source", True)],
}


@pytest.mark.parametrize(("number", "expected"), SOURCES.items(), ids=named(SOURCES))
def test_data_sources(number: str, expected: list[tuple[str, bool]]) -> None:
    assert [(source.name, source.active) for source in config(number).sources] == expected


def test_w6_a_data_section_without_its_gate_does_nothing_and_says_so() -> None:
    loaded = config("V23")
    assert [(source.name, source.active) for source in loaded.sources] == SOURCES["V23"]
    assert [finding.code for finding in loaded.findings] == ["WRN009"]


def test_v25_a_declared_source_that_nothing_refers_to_is_the_one_injected() -> None:
    loaded = config("V25")
    assert "metrics-data-source" not in loaded.added
    assert loaded.sources[0].extractors == ("core-metrics-extractor",)
    assert loaded.plugin("metrics-data-source").params.model_dump(by_alias=True)["path"] == "/prom"


def test_v27_discovery() -> None:
    assert config("V27").discovery == "file-discovery"


def test_v28_an_undeclared_parser_is_added() -> None:
    loaded = config("V28")
    assert loaded.parsers == ("claude", "openai-parser", "passthrough-parser")
    assert {"openai-parser", "passthrough-parser"} <= set(loaded.added)


def test_v33_the_older_form_gives_one_parser() -> None:
    assert config("V33").parsers == ("openai-parser",)


def test_v34_merge_keys_and_anchors() -> None:
    loaded = config("V34")
    assert loaded.plugin("wide").params.model_dump(by_alias=True)["maxNumOfEndpoints"] == 4
    assert loaded.plugin("one").params.model_dump(by_alias=True)["maxNumOfEndpoints"] == 1
    assert [("queue-scorer", 2.0) in profile.plugins for profile in loaded.profiles] == [True, True]


GATED = {"V35": True, "V36": False}


@pytest.mark.parametrize(("number", "active"), GATED.items(), ids=named(GATED))
def test_gated_plugins(number: str, active: bool) -> None:
    loaded = config(number)
    assert {loaded.plugin(name).active for name in ("tokenizer", "responses-store")} == {active}


def test_v39_the_last_entry_of_a_gate_counts() -> None:
    gates = config("V39").gates
    assert (gates["prepareDataPlugins"], gates["flowControl"]) == (True, False)


def test_v40_a_gated_producer_whose_data_is_read_stays_active() -> None:
    assert config("V40").plugin("token-producer").active


def test_zero_bytes_mean_the_built_in_document() -> None:
    loaded = load("").config
    assert profiles(loaded) == {
        "default": [
            ("queue-scorer", 2.0),
            ("kv-cache-utilization-scorer", 2.0),
            ("prefix-cache-scorer", 3.0),
            PICKER,
        ]
    }
    assert not any(plugin.declared for plugin in loaded.plugins)
    assert [finding.code for finding in loaded.findings] == []
