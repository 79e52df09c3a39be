"""Reads an exposition back with the client library's own parser."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from epp.telemetry.metrics import Metrics

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(page: bytes) -> Samples:
    """All samples by name and labels; a sample that appears twice fails."""
    found: Samples = {}
    for family in text_string_to_metric_families(page.decode()):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, f"{key} appears twice"
            found[key] = sample.value
    return found


def value(metrics: Metrics, name: str, /, **labels: str) -> float | None:
    """The value of the one sample of this name whose labels contain ``labels``; None if there is none."""
    wanted = set(labels.items())
    matching = [v for (n, have), v in samples(metrics.exposition()).items() if n == name and wanted <= have]
    assert len(matching) <= 1, f"{name}{labels} is not one sample"
    return matching[0] if matching else None


def types(page: bytes) -> dict[str, str]:
    """The TYPE lines: family → type."""
    lines = [line.split() for line in page.decode().splitlines() if line.startswith("# TYPE ")]
    found = {line[2]: line[3] for line in lines}
    assert len(found) == len(lines), "a family has two TYPE lines"
    return found
