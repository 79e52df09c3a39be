"""Which of several series of one name are parts of one number, and which say the same number again.

A page that several engines share has one series for each of them. The labels that tell engines apart are known here, whichever
way the series itself was named: built in, in ``engineConfigs``, or by a flag.

Source: vllm: vllm/v1/metrics/loggers.py (``engine``, ``model_name``); lmdeploy: lmdeploy/metrics/loggers.py (``engine``);
sglang: sglang/srt/observability/metrics_collector.py (``dp_rank``, ``tp_rank``, ``pp_rank``, ``moe_ep_rank``, ``priority``);
Triton: docs/user_guide/metrics.md (``model``, ``version``). TensorRT-LLM, TGI and llama.cpp have no such label.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from epp.framework.prometheus_text import Sample

PART_LABELS = ("engine", "dp_rank", "model_name", "model", "version")
"""Series that differ in one of these are parts of one whole: replicas, or several models in one server."""
REPEATING_LABELS = frozenset({"tp_rank", "pp_rank", "moe_ep_rank", "priority"})
"""Series that differ only in these are views of one replica, and the greatest is the whole: its workers repeat one number, and
SGLang lists beside the sum (``priority=""``) what each priority has of it."""


class Ranks(NamedTuple):
    """One sample for each rank, and why that may be wrong."""

    samples: list[Sample]
    problem: str = ""
    """What is said twice or differs in labels that are not known, as the end of a sentence; "" = nothing is wrong."""


def ranks_of(samples: Sequence[Sample], part_labels: Sequence[str], payload: Collection[str] = ()) -> Ranks:
    """One sample for each rank: of series that repeat a number the greatest, of samples of one series the latest.

    Args:
        samples: of one name, in the order of the page.
        part_labels: labels that tell ranks apart.
        payload: of an info series: the labels that hold its values. The others may differ as they like.
    """
    if len(samples) < 2:
        return Ranks(list(samples))
    chosen: dict[tuple[str, ...], Sample] = {}
    problem = ""
    for sample in samples:
        rank = tuple([sample.labels.get(label, "") for label in part_labels])
        known = chosen.setdefault(rank, sample)
        if known is sample:
            continue
        differing = _differing(known.labels, sample.labels, payload)
        if differing and differing <= REPEATING_LABELS:
            chosen[rank] = max(known, sample, key=_value)
            continue
        if sample.timestamp > known.timestamp:
            chosen[rank] = sample
        elif differing:
            problem = problem or f"has several series that differ in {', '.join(sorted(differing))}; the first one is used"
        elif sample.timestamp == known.timestamp and sample.value != known.value:
            problem = problem or f"has one series twice, with {known.value:g} and {sample.value:g}; the first one is used"
    return Ranks(list(chosen.values()), problem)


def _differing(one: Mapping[str, str], other: Mapping[str, str], payload: Collection[str]) -> set[str]:
    """Names of labels; one that is missing equals an empty one, as in Prometheus."""
    return {name for name in payload or {**one, **other} if one.get(name, "") != other.get(name, "")}


def _value(sample: Sample) -> float:
    return sample.value
