"""The tables of metrics: consistent in themselves, and with the bucket sets that dashboards aggregate over."""

from __future__ import annotations

import pytest

from epp.telemetry import catalogue
from epp.telemetry.catalogue import CATALOGUE, Bounds, Kind, Metric
from epp.telemetry.legacy_names import LEGACY, Legacy

BY_NAME = {metric.name: metric for metric in CATALOGUE}


def numbers(text: str) -> Bounds:
    return tuple(float(word) for word in text.split())


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        pytest.param(
            catalogue.LATENCY_S,
            ".005 .025 .05 .1 .2 .4 .6 .8 1 1.25 1.5 2 3 4 5 6 8 10 15 20 30 45 60 120 "
            "180 240 300 360 480 600 900 1200 1800 2700 3600",
            id="latency",
        ),
        pytest.param(catalogue.TTFT_S, ".005 .025 .05 .1 .2 .4 .6 .8 1 1.25 1.5 2 3 4 5 6 8 10 15 20 30 45 60 120", id="ttft"),
        pytest.param(catalogue.TPOT_S, ".0005 .00205 .005 .01 .02 .04 .06 .08 .1 .125 .15 .2 .3 .4 .5 .6 .8 1 2", id="tpot"),
        pytest.param(
            catalogue.LONG_TPOT_S,
            ".0005 .00205 .005 .01 .02 .04 .06 .08 .1 .125 .15 .2 .3 .4 .5 .6 .8 1 "
            "1.5 2 3 4.5 6 12 18 24 30 36 48 60 90 120 180 270 360",
            id="long tpot",
        ),
        pytest.param(catalogue.ITL_S, ".001 .005 .01 .02 .04 .06 .08 .1 .15 .2 .3 .5 .75 1 2", id="itl"),
        pytest.param(catalogue.PREDICTION_S, ".0001 .0005 .001 .002 .005 .01 .02 .05 .1 .2 .5 1 2 5", id="prediction"),
        pytest.param(catalogue.RATIO, "0 .1 .2 .3 .4 .5 .6 .7 .8 .9 1", id="ratio"),
        pytest.param(catalogue.OUTPUT_TOKENS, "1 8 16 32 64 128 256 512 1024 2048 4096 8192", id="output tokens"),
        pytest.param(
            catalogue.INPUT_TOKENS,
            "1 8 16 32 64 128 256 512 1024 2048 4096 8192 16384 32778 65536 131072 262144 524288 1048576",
            id="input tokens, with llm-d-router's 32778",
        ),
        pytest.param(catalogue.HIT_BYTES, "0 16 32 64 128 256 512 1024 2048 4096 8192 16384 32768 65536", id="hit bytes"),
    ],
)
def test_bucket_sets_are_those_that_others_expose(bounds: Bounds, expected: str) -> None:
    assert bounds == numbers(expected)


def test_request_sizes_reach_one_gibibyte() -> None:
    assert (catalogue.REQUEST_BYTES[0], catalogue.REQUEST_BYTES[-1], len(catalogue.REQUEST_BYTES)) == (64, 2**30, 25)


@pytest.mark.parametrize("metric", CATALOGUE, ids=lambda metric: metric.name)
def test_an_entry_is_well_formed(metric: Metric) -> None:
    assert metric.name.startswith("llm_d_epp_")
    assert metric.help.startswith("[ALPHA] ")
    assert metric.name.endswith("_total") is (metric.kind is Kind.COUNTER)
    assert bool(metric.buckets) is (metric.kind is Kind.HISTOGRAM)
    assert list(metric.buckets) == sorted(set(metric.buckets))
    assert len(set(metric.labels)) == len(metric.labels)
    if metric.of_endpoint:
        assert {"endpoint_name", "namespace"} <= set(metric.labels)


def test_names_are_unique() -> None:
    names = [metric.name for metric in CATALOGUE] + [entry.name for entry in LEGACY]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("entry", LEGACY, ids=lambda entry: entry.name)
def test_an_older_name_can_be_made_from_its_family(entry: Legacy) -> None:
    current = BY_NAME[entry.current]
    assert {label for _, label in entry.labels} <= set(current.labels)
    assert not entry.buckets or current.kind is Kind.HISTOGRAM
