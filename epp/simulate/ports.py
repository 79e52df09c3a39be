"""Ports of simulated servers: how they are written, had, refused and had again."""

from __future__ import annotations

import asyncio
import socket

WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Addresses that listen everywhere, and where to connect then."""


def connect_host(host: str) -> str:
    """Where to reach what is bound to ``host``: loopback if it listens everywhere."""
    return WILDCARDS.get(host, host)


def join_address(host: str, port: int) -> str:
    """``host:port``, brackets around IPv6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def bound_socket(host: str, port: int) -> socket.socket:
    """A socket that has its port but refuses connections until somebody listens."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setblocking(False)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


async def rebound_socket(host: str, port: int) -> socket.socket:
    """The port again, once the loop has really closed the listener."""
    for _ in range(10):
        try:
            return bound_socket(host, port)
        except OSError:
            await asyncio.sleep(0)
    return bound_socket(host, port)
