"""Findings about the model servers, each looked at directly: metrics page, block size, LoRA, KV events, clock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from epp.doctor.catalogue import finding
from epp.doctor.known import KvEventSettings, Picker
from epp.doctor.picker import MAX_SKEW_S, SKEW_FIX, skew_message
from epp.errors import Finding
from epp.framework.types import Endpoint, EndpointMetrics

_TOPIC_OF_ENGINES = "kv@"
"""What engines are started with for this purpose: ``kv@<address>@<model>``.
Source: llm-d-kv-cache: docs, vLLM's ``--kv-events-config``.
"""


class EventPort(StrEnum):
    """What answers where KV events are expected."""

    ZEROMQ = "zeromq"
    CLOSED = "closed"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class EngineView:
    """What was seen of one model server."""

    endpoint: Endpoint
    metrics: EndpointMetrics | None = None
    """Read from its page; None = the page could not be had."""
    problems: Sequence[str] = ()
    """What the mapping of its engine misses on the page."""
    error: str = ""
    """Why the page could not be had."""
    is_read_by_picker: bool = False
    """The picker itself reads the page at the moment."""
    skew_s: float | None = None
    """Its clock less ours."""
    events: EventPort | None = None
    """None = not looked at."""

    @property
    def place(self) -> str:
        """For messages."""
        return f"{self.endpoint.id} ({self.endpoint.host_port})"


def check_engines(source: str, views: Sequence[EngineView], picker: Picker) -> list[Finding]:
    """All findings.

    Args:
        source: where the list of endpoints came from.
        views: what was seen.
        picker: what its configuration expects of them.
    """
    found: list[Finding] = []
    for view in views:
        found += [*_page(source, view), *_values(source, view, picker), *_clock(source, view)]
        found += _event_port(source, view, picker.kv_events)
    return [*found, *_block_sizes(source, views, picker), *_topics(source, picker.kv_events)]


def _page(source: str, view: EngineView) -> Iterator[Finding]:
    if view.metrics is not None:
        return
    if view.is_read_by_picker:
        message = f"{view.error}, though the picker reads it, so only the way from here is closed"
        yield finding(
            "ENG002", source, view.place, message, "run `epp doctor` where the picker runs, to look at this server too"
        )
    else:
        fix = "start the server; if it runs, compare address, port, scheme and path of its metrics page"
        yield finding("ENG001", source, view.place, view.error, fix)


def _values(source: str, view: EngineView, picker: Picker) -> Iterator[Finding]:
    metrics = view.metrics
    if metrics is None:
        return
    needed = {
        "waiting requests": metrics.waiting_queue,
        "running requests": metrics.running_requests,
        "KV cache use": metrics.kv_cache_usage,
    }
    if lacking := [name for name, value in needed.items() if value is None]:
        why = f": {'; '.join(view.problems)}" if view.problems else ""
        message = f"the page does not tell {' and '.join(lacking)}, so scorers take the server for idle{why}"
        fix = "set the label llm-d.ai/engine-type to its engine, or describe the engine to core-metrics-extractor"
        yield finding("ENG003", source, view.place, message, fix, value=", ".join(lacking))
    elif view.problems:
        message = f"the page is not as its engine's mapping says: {'; '.join(view.problems)}"
        yield finding("ENG004", source, view.place, message, "update the engine, or its entry in core-metrics-extractor")
    if not metrics.cache_block_size and not lacking:
        message = "the page does not tell the tokens per KV block, so prefix caching assumes 16"
        fix = "update the engine, or give blockSizeTokens to the prefix plugin"
        yield finding("ENG005", source, view.place, message, fix)
    tells_lora = metrics.max_active_models or metrics.active_models or metrics.waiting_models
    if picker.scores_lora and not tells_lora:
        message = "the configuration scores LoRA adapters, but the page tells of none, so this server scores as one without"
        yield finding(
            "ENG008", source, view.place, message, "start the engine with --enable-lora, or drop lora-affinity-scorer"
        )


def _clock(source: str, view: EngineView) -> Iterator[Finding]:
    if view.skew_s is not None and abs(view.skew_s) > MAX_SKEW_S:
        yield finding("ENG009", source, view.place, skew_message(view.skew_s), SKEW_FIX, value=round(view.skew_s, 1))


def _event_port(source: str, view: EngineView, expected: Sequence[KvEventSettings]) -> Iterator[Finding]:
    ports = " and ".join(sorted({str(settings.port) for settings in expected if settings.connects}))
    fix = "start the engine with --kv-events-config (publisher zmq), or set podDiscoveryConfig.socketPort to its port"
    if view.events is EventPort.CLOSED:
        message = f"nothing listens on port {ports}, so the picker never learns what this server has cached"
        yield finding("ENG010", source, view.place, message, fix, value=ports)
    elif view.events is EventPort.OTHER:
        message = f"what listens on port {ports} does not greet as ZeroMQ does, so no KV events come"
        yield finding("ENG011", source, view.place, message, fix, value=ports)


def _block_sizes(source: str, views: Sequence[EngineView], picker: Picker) -> Iterator[Finding]:
    sizes = {view.place: view.metrics.cache_block_size for view in views if view.metrics and view.metrics.cache_block_size}
    if len(set(sizes.values())) > 1:
        shown = ", ".join(f"{place} {size}" for place, size in sizes.items())
        message = f"tokens per KV block differ ({shown}), so equal prefixes do not count alike"
        yield finding("ENG006", source, "", message, "start all engines of a pool with the same --block-size")
    for settings in picker.kv_events:
        for place, size in sizes.items():
            if size != settings.block_size:
                message = f"its blocks have {size} tokens, those of {settings.plugin} {settings.block_size}: none ever matches"
                fix = f"set tokenProcessorConfig.blockSize to {size}"
                yield finding("ENG007", source, place, message, fix, value=size)


def _topics(source: str, expected: Sequence[KvEventSettings]) -> Iterator[Finding]:
    for settings in expected:
        if not (settings.topic.startswith(_TOPIC_OF_ENGINES) or _TOPIC_OF_ENGINES.startswith(settings.topic)):
            message = f"it subscribes to topics that begin with {settings.topic!r}; engines publish kv@ADDRESS@MODEL"
            fix = 'set topicFilter to "kv@", or start the engines with a topic that begins so'
            yield finding("ENG012", source, settings.plugin, message, fix, value=settings.topic)
