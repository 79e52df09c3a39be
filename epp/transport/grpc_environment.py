"""What grpc reads from the environment, once, while it is imported: to be prepared before that.

Imports nothing of grpc, and must not.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

CIPHERS_VARIABLE = "GRPC_SSL_CIPHER_SUITES"

_DEFAULTS = {
    # One thread less between socket and event loop: takes 20 to 25 % off the CPU of a stream (grpcio 1.85, Linux).
    "GRPC_EXPERIMENTS": "-event_engine_listener",
    # Handshakes that failed are the client's business; our log is structured, grpc's is not.
    "GRPC_VERBOSITY": "ERROR",
}


def prepare(cipher_suites: Sequence[str] = ()) -> bool:
    """Set what the transport wants of grpc; what the operator has set himself stays, except the cipher suites.

    Args:
        cipher_suites: OpenSSL names for TLS 1.2, for all ports of the process; empty keeps grpc's own choice.

    Returns:
        Whether it was in time: False if grpc is already imported.
    """
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    if cipher_suites:
        os.environ[CIPHERS_VARIABLE] = cipher_list(cipher_suites)
    return "grpc" not in sys.modules


def cipher_list(cipher_suites: Sequence[str]) -> str:
    """The value of the variable for these suites."""
    return ":".join(cipher_suites)
