"""destination-endpoint-served-verifier: repeat the data plane's served endpoint; for conformance tests."""

from __future__ import annotations

from epp.framework.interfaces import Role
from epp.framework.registry import PluginType, Reads

TYPE = "destination-endpoint-served-verifier"

PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.RESPONSE_RECEIVED}),
    summary="Repeats in a response header which endpoint the data plane says it used; for conformance tests.",
    reads=Reads(response_headers=True),
    wait="conformance tests of the gateway API",
)
