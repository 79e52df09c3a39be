"""Which transport serves: a name → dotted path table, so that none is imported in vain."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from epp.errors import UsageError
from epp.framework import log
from epp.seam import Transport

_logger = log.get("epp.transport.choose")

AUTO = "auto"
TRANSPORTS = {
    "grpcio": ("epp.transport.grpc_server", "GrpcTransport"),
    "native": ("epp.transport.native", "NativeTransport"),
}
NATIVE_MODULE = "epp_native"


def make_transport(name: str) -> tuple[str, Transport]:
    """The transport of this name, and which it is.

    Args:
        name: of ``TRANSPORTS``, or ``auto``: the native one where it is installed and fits.

    Raises:
        UsageError: it is not installed, or does not fit this version.
    """
    if name == AUTO:
        return _best()
    try:
        return name, _made(name)
    except ImportError as error:
        raise UsageError([f"--transport={name} cannot be used: {error}; build it with `make native`, or use grpcio"]) from error


def _best() -> tuple[str, Transport]:
    if find_spec(NATIVE_MODULE) is not None:
        try:
            return "native", _made("native")
        except ImportError as error:
            _logger.warning("native transport cannot be used, grpcio serves and costs more", problem=str(error))
    return "grpcio", _made("grpcio")


def _made(name: str) -> Transport:
    module, attribute = TRANSPORTS[name]
    transport: Transport = getattr(import_module(module), attribute)()
    return transport
