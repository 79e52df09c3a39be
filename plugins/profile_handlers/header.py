"""header-profile-handler: run the profile that a request header names."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from epp.framework.interfaces import Role
from epp.framework.params import Params, ProfileReference
from epp.framework.registry import PluginType, Reads

TYPE = "header-profile-handler"


class HeaderProfileHandlerParams(Params):
    """Parameters of header-profile-handler."""

    header_name: str = Field(default="EPP-Profile", min_length=1, description="Request header with the profile's name.")
    default_profile: Annotated[str, ProfileReference(required=False)] = Field(
        default="decode", min_length=1, description="Profile of requests without the header."
    )


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.PROFILE_HANDLER}),
    summary="Runs the scheduling profile that a request header names.",
    params=HeaderProfileHandlerParams,
    reads=Reads(request_headers=frozenset({"epp-profile"})),
    experimental=True,
    wait="profiles chosen by header",
)
