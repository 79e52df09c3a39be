"""One streamed request, as its events."""

from __future__ import annotations

from epp.telemetry.catalogue import ITL_S
from epp.telemetry.metrics import Metrics
from epp.telemetry.requests import RequestFacts, RequestLabels

LABELS = RequestLabels("llama", "llama-lora", "tenant-a", -1)
SHOWN = {"model_name": "llama", "target_model_name": "llama-lora", "fairness_id": "tenant-a", "priority": "-1"}
GAPS = (0, 4, *([0] * (len(ITL_S) - 1)))
STREAMED = RequestFacts(
    duration_s=2.0,
    ttft_s=0.5,
    streaming=True,
    request_bytes=100,
    response_bytes=5000,
    input_tokens=40,
    output_tokens=4,
    cached_tokens=16,
    gaps=GAPS,
    gaps_s=0.016,
)


def one_request(metrics: Metrics, facts: RequestFacts = STREAMED, labels: RequestLabels = LABELS) -> None:
    metrics.request_scheduled(labels)
    metrics.request_finished(labels, facts)
