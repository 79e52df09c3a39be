"""The transports there are: each test of transports runs over all that are installed."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from epp.seam import Transport
from epp.transport.grpc_server import GrpcTransport

MakeTransport = Callable[[], Transport]

TRANSPORTS: dict[str, type[Transport]] = {"grpcio": GrpcTransport}

HAS_NATIVE = find_spec("epp_native") is not None
if HAS_NATIVE:
    from epp.transport.native import NativeTransport

    TRANSPORTS["native"] = NativeTransport
