"""session-id-producer: read the session id from a header or a cookie."""

from __future__ import annotations

from pydantic import Field, model_validator

from epp.framework.interfaces import Role
from epp.framework.keys import SESSION_ID
from epp.framework.params import Params
from epp.framework.registry import PluginType

TYPE = "session-id-producer"


class SessionIdProducerParams(Params):
    """Exactly one of both parameters."""

    header_name: str = Field(default="", description="Request header with the session id.")
    cookie_name: str = Field(default="", description="Cookie with the session id.")

    @model_validator(mode="after")
    def _check_single(self) -> SessionIdProducerParams:
        if bool(self.header_name) == bool(self.cookie_name):
            raise ValueError("exactly one of headerName and cookieName must be given")
        return self


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.DATA_PRODUCER}),
    summary="Reads the session id from a header or a cookie.",
    params=SessionIdProducerParams,
    produces=(SESSION_ID,),
    wait="session affinity",
)
