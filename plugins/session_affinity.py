"""Parameters that the session affinity scorer and filters share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from epp.framework.interfaces import Role
from epp.framework.params import Int, Params, PluginReference

SESSION_TOKEN_HEADER = "x-session-token"
"""Request and response header with the encoded endpoint. Source: llm-d-router: scheduling/scorer/sessionaffinity."""


class EncodedEndpointHeader(Params):
    """Options of the strategy ``encoded_endpoint_header``."""

    header: str = Field(
        default=SESSION_TOKEN_HEADER,
        min_length=1,
        description="Request and response header that carries the Base64 text of the endpoint's `namespace/name`.",
    )


class SessionSource(Params):
    """Where a session id is read from: one of the two."""

    header: str = Field(default="", description="Request header.")
    attribute: str = Field(default="", description="Data key of the request, such as `SessionID`.")
    producer: Annotated[str, PluginReference(Role.DATA_PRODUCER)] = Field(
        default="", description="Instance that writes the attribute; default: its usual producer."
    )

    @model_validator(mode="after")
    def _check(self) -> SessionSource:
        if bool(self.header) == bool(self.attribute):
            raise ValueError("exactly one of header and attribute must be given")
        if self.producer and not self.attribute:
            raise ValueError("producer needs attribute")
        return self


class SessionId(Params):
    """Options of the strategy ``session_id``."""

    sources: list[SessionSource] = Field(
        default=[], description="Tried in order, first non-empty value wins; default: the header `x-session-id`."
    )
    eviction_ttl_seconds: Int = Field(default=300, gt=0, description="Seconds after its last use that a session is forgotten.")
    eviction_sweep_seconds: Int = Field(default=10, gt=0, description="Seconds between searches for forgotten sessions.")


class EncodedHeaderParams(Params):
    """Affinity by an encoded endpoint in a header, the only strategy across clusters."""

    strategy: Literal["encoded_endpoint_header"] = Field(
        default="encoded_endpoint_header", description="How sessions are recognised."
    )
    profile_name: str = Field(default="", description="Scheduling profile whose target is bound; default: the primary one.")
    encoded_endpoint_header_config: EncodedEndpointHeader = Field(
        default_factory=EncodedEndpointHeader, description="Options of this strategy."
    )


class SessionAffinityParams(Params):
    """Affinity by an encoded endpoint in a header, or by a session id that this picker remembers."""

    strategy: Literal["encoded_endpoint_header", "session_id"] = Field(
        default="encoded_endpoint_header",
        description="`encoded_endpoint_header`: the client sends back a token with the endpoint; "
        "`session_id`: the picker remembers the endpoint of each session id.",
    )
    profile_name: str = Field(default="", description="Scheduling profile whose target is bound; default: the primary one.")
    encoded_endpoint_header_config: EncodedEndpointHeader = Field(
        default_factory=EncodedEndpointHeader, description="Options of `encoded_endpoint_header`."
    )
    session_id_config: SessionId = Field(default_factory=SessionId, description="Options of `session_id`.")
