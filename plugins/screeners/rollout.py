"""disaggregatedset-rollout-screener: keep a request within one revision of a disaggregated deployment."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from epp.framework.interfaces import Role
from epp.framework.params import Params
from epp.framework.registry import PluginType
from plugins.shared.label_selector import LabelKey

TYPE = "disaggregatedset-rollout-screener"


class RolloutScope(Params):
    """Which endpoints are screened."""

    label_selector: str = Field(min_length=1, description="Endpoints of the deployment, a selector such as `app=x,tier!=y`.")


class HeaderSelector(Params):
    """A header that chooses endpoints by label."""

    name: str = Field(default="", description="Name of the selector.")
    header_name: str = Field(min_length=1, description="Request header with the wanted value.")
    label_key: LabelKey = Field(description="Label that must have it.")
    mode: Literal["strict", "prefer"] = Field(default="strict", description="Whether no such endpoint is an error.")


class RequiredRoles(Params):
    """Roles that a revision must cover."""

    values: list[str] = Field(default=[], description="Roles.")


class RevisionGating(Params):
    """How a revision is chosen."""

    mode: Literal["sum", "max-role", "disabled"] = Field(
        description="Weight of a revision: all its ready endpoints, or those of the largest role; or no choice."
    )
    require_roles: RequiredRoles = Field(default_factory=RequiredRoles, description="Roles that a revision must cover.")
    revision_label_key: LabelKey = Field(default="disaggregatedset.x-k8s.io/revision", description="Label with the revision.")
    role_label_key: LabelKey = Field(default="disaggregatedset.x-k8s.io/role", description="Label with the role.")


class RolloutScreenerParams(Params):
    """Parameters of disaggregatedset-rollout-screener."""

    scope: RolloutScope = Field(description="Which endpoints are screened.")
    header_selectors: list[HeaderSelector] = Field(default=[], description="Headers that choose endpoints by label.")
    revision_gating: RevisionGating = Field(description="How a revision is chosen.")


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.SCREENER, Role.RESPONSE_RECEIVED}),
    summary="Keeps a request within one revision of a disaggregated deployment.",
    params=RolloutScreenerParams,
    experimental=True,
    wait="rollouts of disaggregated deployments",
    example="""
        scope:
          labelSelector: app=chat
        revisionGating:
          mode: sum
    """,
)
