"""Encoders for tests of content codings."""

from __future__ import annotations

import sys
import zlib

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def raw_deflate(data: bytes) -> bytes:
    """Deflate without the header of zlib."""
    encoder = zlib.compressobj(wbits=-15)
    return encoder.compress(data) + encoder.flush()


def zstd_compress(data: bytes, window_log: int = 0) -> bytes:
    """One frame.

    Args:
        window_log: of the window that its reader must hold; 0 = the encoder's choice, and the length is told.
    """
    if not window_log:
        return zstd.compress(data)
    encoder = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: window_log})
    return encoder.compress(data) + encoder.flush()
