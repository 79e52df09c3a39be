"""Which sockets events are received on."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from epp.framework.types import Endpoint

_HERE = frozenset({"*", "0.0.0.0", "::", "localhost", ""})


@dataclass(frozen=True, slots=True)
class ReceiverSettings:
    """What is connected to, and what is bound."""

    central: str = ""
    """ZMQ address for engines that push; "" = none."""
    topic_filter: str = "kv@"
    """Prefix of the topics on the central socket."""
    pod_topic_filter: str = ""
    """Prefix of the topics of a pod's own socket."""
    follows_pods: bool = True
    """Connect to each endpoint."""
    port: int = 5557
    """Of an endpoint's rank 0; other ranks' follow."""
    replay_port: int = 0
    """Likewise; 0 = messages cannot be replayed."""
    wants: Callable[[Endpoint], bool] = lambda _: True
    """Whose events are of interest."""


def binds(address: str) -> bool:
    """Whether a central address is ours, so that engines connect to it; else it is connected to.

    Ours are wildcards, addresses of this machine, and files.
    """
    scheme, _, rest = address.partition("://")
    if scheme != "tcp":
        return True
    host = rest.rpartition(":")[0].strip("[]")
    if host in _HERE:
        return True
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except OSError:
        return False
    family, kind, protocol, _, name = found[0]
    with socket.socket(family, kind, protocol) as probe:
        try:
            probe.bind(name)
        except OSError:
            return False
    return True


def socket_address(endpoint: Endpoint, port: int) -> str:
    """The ZMQ address of an endpoint's socket.

    Args:
        port: of its rank 0.
    """
    host = f"[{endpoint.address}]" if ":" in endpoint.address else endpoint.address
    return f"tcp://{host}:{port + endpoint.rank_index}"


def matches_selector(selector: str) -> Callable[[Mapping[str, str]], bool]:
    """A label selector as a text, such as ``a=b,c!=d,e``.

    Raises:
        ValueError: it is none.
    """
    tests = [_term(term) for term in filter(None, map(str.strip, selector.split(",")))]
    return lambda labels: all(test(labels) for test in tests)


def _term(term: str) -> Callable[[Mapping[str, str]], bool]:
    if "(" in term or " " in term:
        raise ValueError(f"{term!r} is not key=value, key!=value, key or !key")
    if "!=" in term:
        key, _, value = term.partition("!=")
        return lambda labels: labels.get(key) != value
    if "=" in term:
        key, _, value = term.replace("==", "=").partition("=")
        return lambda labels: labels.get(key) == value
    if term.startswith("!"):
        return lambda labels: term[1:] not in labels
    return lambda labels: term in labels
