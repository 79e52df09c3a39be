"""What the profile handlers and disagg-headers-handler share about disaggregated requests: headers, decisions, ports.

Header names come in two families, Heimdall's and llm-d's; both are written, because the proxy on the decode side reads one.
Source: llm-d-router: pkg/common/routing/common.go; Heimdall documentation of disagg-headers-handler.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from epp.framework.handle import PluginContext
from epp.framework.interfaces import HeaderEdits
from epp.framework.results import ProfileRunResult, SchedulingResult
from epp.framework.types import Endpoint, InferenceRequest

HEADERS_HANDLER = "disagg-headers-handler"
"""Type of the plugin that writes the headers if it is declared; otherwise the profile handler does."""
PREFILL_HEADERS = ("mif-prefill-endpoint", "x-prefiller-host-port")
ENCODE_HEADERS = ("mif-encode-endpoints", "x-encoder-hosts-ports")
DATA_PARALLEL_HEADER = "x-data-parallel-host-port"
NO_DECODE = "failed to find available decode workers"
UNKNOWN_MODEL = "unknown"


def write_stage_headers(edits: HeaderEdits, prefill: Sequence[Endpoint], encode: Sequence[Endpoint]) -> None:
    """Name the first prefill target and all encode targets; without any, remove what a client may have sent.

    Args:
        prefill, encode: best first; empty = the stage does not run elsewhere.
    """
    _write(edits, PREFILL_HEADERS, prefill[0].host_port if prefill else "")
    _write(edits, ENCODE_HEADERS, ",".join([endpoint.host_port for endpoint in encode]))


def _write(edits: HeaderEdits, names: Sequence[str], value: str) -> None:
    for name in names:
        if value:
            edits.set(name, value)
        else:
            edits.remove(name)


def handler_writes_headers(context: PluginContext) -> bool:
    """No headers handler is declared, so that the profile handler must write the headers itself."""
    return HEADERS_HANDLER not in context.declared.values()


def is_elsewhere(targets: Sequence[Endpoint], decode: Endpoint) -> bool:
    """The best target is another endpoint than the one that decodes: a server need not call itself."""
    return bool(targets) and targets[0].id != decode.id


def gather(
    results: Mapping[str, ProfileRunResult | None], decode: str, prefill: str, encode: str = ""
) -> dict[str, ProfileRunResult | None]:
    """The runs that count: decode, and the stages that run elsewhere, in the order in which they ran."""
    chosen = results[decode]
    assert chosen is not None
    return {
        name: run
        for name, run in results.items()
        if run is not None and (name in (decode, encode) or (name == prefill and is_elsewhere(run.targets, chosen.targets[0])))
    }


def decision_type(result: SchedulingResult) -> str:
    """The value of the metrics label ``decision_type``."""
    has_encode, has_prefill = bool(result.targets_of(result.encode)), bool(result.targets_of(result.prefill))
    stages = ("encode-" if has_encode else "") + ("prefill-" if has_prefill else "")
    return f"{stages}decode" if stages else "decode-only"


class DecisionCounter:
    """Counts what was decided, in one of the families ``*_decision_total``.

    Args:
        context: of the plugin that decides.
        family: full name of the metric.
    """

    def __init__(self, context: PluginContext, family: str) -> None:
        self._metrics = context.metrics
        self._family = family
        self._name = context.name
        self._type = context.type

    def count(self, request: InferenceRequest, result: SchedulingResult) -> None:
        """One decision."""
        self._metrics.counter(
            self._family,
            plugin_name=self._name,
            plugin_type=self._type,
            model_name=request.target_model or UNKNOWN_MODEL,
            decision_type=decision_type(result),
        ).inc()


def at_port(targets: tuple[Endpoint, ...], port: int) -> tuple[Endpoint, ...]:
    """The same endpoints behind the port of a proxy; 0 = unchanged."""
    return tuple([endpoint.at_port(port) for endpoint in targets]) if port else targets


def name_rank(edits: HeaderEdits, result: SchedulingResult) -> None:
    """Tell the proxy on the primary port which rank of its pod was picked."""
    edits.set(DATA_PARALLEL_HEADER, result.targets_of(result.primary)[0].host_port)
