"""What is known of the picker beyond Envoy's side, as the checks of Envoy and of the engines need it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from epp.decision.progress import DECISION_DEADLINE_S
from epp.doctor.documents import Json, mapping, mappings
from epp.framework.params import parse_duration
from epp.process.options import Options

LORA_SCORER = "lora-affinity-scorer"
PRECISE_PREFIX = "precise-prefix-cache-"
"""How the types begin that follow the engines' KV events, also where the document leaves all to their defaults."""
_FLOW_CONTROL_GATE = "flowControl"
_DEFAULT_BLOCK_SIZE = 16
_DEFAULT_EVENT_PORT = 5557
_DEFAULT_TOPIC = "kv@"


@dataclass(frozen=True, slots=True)
class KvEventSettings:
    """How a plugin expects to hear of the engines' caches."""

    plugin: str
    port: int
    """Port of an engine's socket."""
    connects: bool
    """The picker connects to the engines; else they push to it."""
    topic: str
    block_size: int
    """Tokens per block."""


@dataclass(frozen=True, slots=True)
class Picker:
    """What the checks need to know; the defaults hold where the picker was not asked."""

    decision_deadline_s: float = DECISION_DEADLINE_S
    max_body_bytes: int = Options().max_request_body_bytes
    queue_ttl_s: float | None = None
    """Longest wait in a queue; None = no queue, or a wait without end."""
    scores_lora: bool = False
    max_endpoints: int = 1
    """Most endpoints that one answer names."""
    kv_events: Sequence[KvEventSettings] = ()


def picker_of(effective: Mapping[str, Any], longest_ttl_s: float | None = None) -> Picker:
    """Read the completed document of ``/debug/config``.

    Args:
        longest_ttl_s: of the bands, where their page tells.
    """
    plugins = mappings(effective.get("plugins"))
    parameters = [mapping(plugin.get("parameters")) for plugin in plugins]
    return Picker(
        queue_ttl_s=max(filter(None, (_queue_ttl_s(effective), longest_ttl_s)), default=None),
        scores_lora=any(plugin.get("type") == LORA_SCORER for plugin in plugins),
        max_endpoints=max((_positive(entry.get("maxNumOfEndpoints"), 1) for entry in parameters), default=1),
        kv_events=tuple(
            _kv_events(str(plugin.get("name", "")), entry)
            for plugin, entry in zip(plugins, parameters, strict=True)
            if "kvEventsConfig" in entry or str(plugin.get("type", "")).startswith(PRECISE_PREFIX)
        ),
    )


def _kv_events(name: str, parameters: Json) -> KvEventSettings:
    events, tokens = mapping(parameters.get("kvEventsConfig")), mapping(parameters.get("tokenProcessorConfig"))
    indexer = mapping(mapping(parameters.get("indexerConfig")).get("tokenProcessorConfig"))
    sizes = (place.get(key) for place in (tokens, indexer) for key in ("blockSizeTokens", "blockSize"))
    return KvEventSettings(
        plugin=name,
        port=_positive(mapping(events.get("podDiscoveryConfig")).get("socketPort"), _DEFAULT_EVENT_PORT),
        connects=bool(events.get("discoverPods", True)),
        topic=str(events.get("topicFilter", _DEFAULT_TOPIC)),
        block_size=_positive(next(filter(None, sizes), None), _DEFAULT_BLOCK_SIZE),
    )


def _queue_ttl_s(effective: Mapping[str, Any]) -> float | None:
    gates = effective.get("featureGates")
    is_on = isinstance(gates, list) and any(gate in (_FLOW_CONTROL_GATE, f"{_FLOW_CONTROL_GATE}=true") for gate in gates)
    text = mapping(effective.get("flowControl")).get("defaultRequestTTL")
    if not is_on or not isinstance(text, str):
        return None
    try:
        return parse_duration(text) or None
    except ValueError:
        return None


def _positive(value: object, default: int) -> int:
    return int(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0 else default
