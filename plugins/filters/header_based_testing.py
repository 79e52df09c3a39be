"""header-based-testing-filter: keep the endpoints that a request header names; for conformance tests."""

from __future__ import annotations

from ipaddress import ip_address

from epp.framework.candidates import Candidates
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Filter, Role
from epp.framework.params import NoParams
from epp.framework.registry import PluginType, Reads
from epp.framework.types import InferenceRequest

TYPE = "header-based-testing-filter"
HEADER = "test-epp-endpoint-selection"


class HeaderBasedTestingFilter:
    """Keep the endpoints that a request header names.

    Parameters: none.
    Reads: the header ``test-epp-endpoint-selection``: addresses with or without a port, separated by commas.
    Formula: the named candidates in the order of the header, each once; an address without a port names all of its ports.
    Missing data: without the header none, so that a conformance test notices.
    Source: llm-d-router: pkg/epp/framework/plugins/scheduling/filter/testing
    """

    def filter(self, request: InferenceRequest, candidates: Candidates) -> Candidates:
        """The named candidates."""
        text = request.headers.get(HEADER) or ""
        chosen: dict[int, None] = {}
        for entry in filter(None, map(str.strip, text.split(","))):
            chosen.update(dict.fromkeys(_named(entry, candidates)))
        return candidates.select(chosen)


def _named(entry: str, candidates: Candidates) -> list[int]:
    """Positions of the candidates that one entry of the header names."""
    host, port = _split(entry)
    return [
        position
        for position, endpoint in enumerate(candidates.endpoints)
        if _canonical(endpoint.address) == host and port in (None, endpoint.port)
    ]


def _split(entry: str) -> tuple[str, int | None]:
    """Address and port; the colons of an IPv6 address without brackets are its own."""
    if entry.startswith("[") or entry.count(":") == 1:
        host, _, port = entry.rpartition(":")
        if port.isdecimal():
            return _canonical(host), int(port)
    return _canonical(entry), None


def _canonical(address: str) -> str:
    """The usual form of an IP address, without brackets; anything else as it is."""
    address = address.removeprefix("[").removesuffix("]")
    try:
        return str(ip_address(address))
    except ValueError:
        return address


def _create(context: PluginContext, params: NoParams) -> Filter:
    return HeaderBasedTestingFilter()


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.FILTER}),
    summary="Keeps the endpoints that the header test-epp-endpoint-selection names; for conformance tests.",
    reads=Reads(request_headers=frozenset({HEADER})),
    factory=_create,
)
