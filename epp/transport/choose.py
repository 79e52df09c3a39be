"""Which transport serves: a name → dotted path table, so that none is imported in vain."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from epp.errors import UsageError
from epp.seam import Transport

AUTO = "auto"
TRANSPORTS = {
    "grpcio": ("epp.transport.grpc_server", "GrpcTransport"),
    "native": ("epp.transport.native", "NativeTransport"),
}
NATIVE_MODULE = "epp_native"


def make_transport(name: str) -> tuple[str, Transport]:
    """The transport of this name, and which it is.

    Args:
        name: of ``TRANSPORTS``, or ``auto``: the native one where it is installed.

    Raises:
        UsageError: it is not installed.
    """
    if name == AUTO:
        name = "native" if find_spec(NATIVE_MODULE) is not None else "grpcio"
    module, attribute = TRANSPORTS[name]
    try:
        transport: Transport = getattr(import_module(module), attribute)()
    except ImportError as error:
        raise UsageError([f"--transport={name} cannot be used: {error}; build it with `make native`, or use grpcio"]) from error
    return name, transport
