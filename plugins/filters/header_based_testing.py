"""header-based-testing-filter: keep the endpoints that a request header names; for conformance tests."""

from __future__ import annotations

from epp.framework.interfaces import Role
from epp.framework.registry import PluginType, Reads

TYPE = "header-based-testing-filter"

PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.FILTER}),
    summary="Keeps the endpoints that the header test-epp-endpoint-selection names; for conformance tests.",
    reads=Reads(request_headers=frozenset({"test-epp-endpoint-selection"})),
    wait="conformance tests of the gateway API",
)
