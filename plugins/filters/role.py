"""prefill-filter, decode-filter, encode-filter: keep endpoints by their role in disaggregated serving."""

from __future__ import annotations

from dataclasses import dataclass

from epp.framework.candidates import Candidates
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Filter, Role
from epp.framework.params import NoParams
from epp.framework.registry import PluginType
from epp.framework.types import Endpoint, InferenceRequest

HEIMDALL_LABEL = "mif.moreh.io/role"
LLM_D_LABEL = "llm-d.ai/role"


@dataclass(frozen=True, slots=True)
class Accepted:
    """Which endpoints one stage can use."""

    heimdall: frozenset[str]
    """Values of ``mif.moreh.io/role``; this label decides when it is there, even if it is empty."""
    llm_d: frozenset[str]
    """Values of ``llm-d.ai/role``."""
    without_role: bool
    """Endpoints without either label."""


_PREFILL = frozenset({"prefill", "encode-prefill", "prefill-decode", "encode-prefill-decode"})
_DECODE = frozenset({"decode", "both", "prefill-decode", "encode-prefill-decode"})
_ENCODE = frozenset({"encode", "encode-prefill", "encode-prefill-decode"})

# "both" means a server that decodes alone or with another's help: under Heimdall's label it is never a prefill target.
PREFILL = Accepted(_PREFILL, _PREFILL | {"both"}, without_role=False)
DECODE = Accepted(_DECODE, _DECODE, without_role=True)
ENCODE = Accepted(_ENCODE, _ENCODE, without_role=False)


class RoleFilter:
    """Keep endpoints whose role suits one stage.

    Parameters: none.
    Reads: labels ``mif.moreh.io/role`` and, where that is absent, ``llm-d.ai/role``.
    Formula: role in the stage's set; unknown roles pass nowhere.
    Missing data: an endpoint without either label can decode only.
    Source: llm-d-router: pkg/epp/framework/plugins/scheduling/filter/bylabel/roles.go; Heimdall's plugin reference.
    """

    def __init__(self, accepted: Accepted) -> None:
        self._accepted = accepted

    def filter(self, request: InferenceRequest, candidates: Candidates) -> Candidates:
        """The candidates of the stage."""
        accepts = self._accepts
        return candidates.where([accepts(endpoint) for endpoint in candidates.endpoints])

    def _accepts(self, endpoint: Endpoint) -> bool:
        labels = endpoint.labels
        role = labels.get(HEIMDALL_LABEL)
        if role is not None:
            return role in self._accepted.heimdall
        role = labels.get(LLM_D_LABEL)
        return self._accepted.without_role if role is None else role in self._accepted.llm_d


def _create_prefill(context: PluginContext, params: NoParams) -> Filter:
    return RoleFilter(PREFILL)


def _create_decode(context: PluginContext, params: NoParams) -> Filter:
    return RoleFilter(DECODE)


def _create_encode(context: PluginContext, params: NoParams) -> Filter:
    return RoleFilter(ENCODE)


PREFILL_FILTER = PluginType(
    type="prefill-filter",
    roles=frozenset({Role.FILTER}),
    summary="Keeps endpoints that can compute prompts for others.",
    factory=_create_prefill,
    per_snapshot=True,
)

DECODE_FILTER = PluginType(
    type="decode-filter",
    roles=frozenset({Role.FILTER}),
    summary="Keeps endpoints that can decode; those without a role can.",
    factory=_create_decode,
    per_snapshot=True,
)

ENCODE_FILTER = PluginType(
    type="encode-filter",
    roles=frozenset({Role.FILTER}),
    summary="Keeps endpoints that can encode media for others.",
    factory=_create_encode,
    per_snapshot=True,
)

PLUGINS = (PREFILL_FILTER, DECODE_FILTER, ENCODE_FILTER)
