"""Environment variables that are no twins of flags."""

from __future__ import annotations

import pytest

from epp.commands.flags import parse
from epp.config.load import load_config
from epp.config.loaded import ConfigSource, LoadedConfig, LoadFlags
from epp.framework.registry import Gate
from tests.config.corpus import registry

HEADER = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins: [{type: queue-scorer}]\n"
ENDPOINT = ["--endpoint=127.0.0.1:1"]


def load(environ: dict[str, str], more: str = "") -> LoadedConfig:
    return load_config(ConfigSource.from_text(HEADER + more), registry(), LoadFlags(environ=environ))


def told(config: LoadedConfig) -> list[str]:
    return [finding.message for finding in config.findings if finding.code == "WRN018"]


@pytest.mark.parametrize(
    ("name", "gate"),
    [
        ("ENABLE_EXPERIMENTAL_DATALAYER_V2", Gate.DATA_LAYER),
        ("ENABLE_EXPERIMENTAL_FLOW_CONTROL_LAYER", Gate.FLOW_CONTROL),
    ],
)
@pytest.mark.parametrize(
    ("text", "on", "message"),
    [
        ("true", True, "{} is an older form"),
        ("1", True, "{} is an older form"),
        ("False", False, "{} is an older form"),
        ("maybe", False, "{}=maybe is neither true nor false; it has no effect"),
        ("", False, ""),
    ],
)
def test_variables_of_gates(name: str, gate: Gate, text: str, on: bool, message: str) -> None:
    config = load({name: text})
    assert config.enabled(gate) is on
    assert told(config) == ([message.format(name)] if message else [])


@pytest.mark.parametrize(
    ("name", "text", "parameter", "value"),
    [
        ("SD_QUEUE_DEPTH_THRESHOLD", "9", "queue_depth_threshold", 9),
        ("SD_KV_CACHE_UTIL_THRESHOLD", "0.5", "kv_cache_util_threshold", 0.5),
        ("SD_METRICS_STALENESS_THRESHOLD", "3s", "metrics_staleness_threshold", 3.0),
    ],
)
@pytest.mark.parametrize(
    "section", ["", "saturationDetector: {queueDepthThreshold: 3, kvCacheUtilThreshold: 0.3, metricsStalenessThreshold: 1s}\n"]
)
def test_variables_of_the_detector_win(name: str, text: str, parameter: str, value: object, section: str) -> None:
    config = load({name: text}, section)
    assert getattr(config.plugin(config.detector or "").params, parameter) == value
    assert told(config) == [f"{name} is an older form; it wins over the document"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("SD_QUEUE_DEPTH_THRESHOLD", "0"),
        ("SD_QUEUE_DEPTH_THRESHOLD", "many"),
        ("SD_KV_CACHE_UTIL_THRESHOLD", "1.0"),
        ("SD_METRICS_STALENESS_THRESHOLD", "200"),
        ("SD_METRICS_STALENESS_THRESHOLD", "-1s"),
    ],
)
def test_a_value_that_cannot_be_used_leaves_the_default(name: str, text: str) -> None:
    config, plain = load({name: text}), load({})
    assert config.plugin(config.detector or "").params == plain.plugin(plain.detector or "").params
    [message] = told(config)
    assert message.startswith(f"{name}={text} has no effect: it must be ")


def test_the_process_passes_them_on() -> None:
    environ = {"SD_QUEUE_DEPTH_THRESHOLD": "9", "NODE_NAME": "node-1", "POD_NAME": "epp-0", "OTHER": "x"}
    options = parse(ENDPOINT, environ).options
    assert options.older_environment == {"SD_QUEUE_DEPTH_THRESHOLD": "9"}
    assert (options.node_name, options.pod_name) == ("node-1", "epp-0")


def test_a_predictor_beside_the_picker_has_no_effect() -> None:
    command = parse(ENDPOINT, {"PREDICTION_SERVER_URL": "http://p", "LATENCY_MAX_SAMPLE_SIZE": "1"})
    assert list(command.warnings) == [
        "LATENCY_MAX_SAMPLE_SIZE has no effect: latency is predicted in this process",
        "PREDICTION_SERVER_URL has no effect: latency is predicted in this process",
    ]
