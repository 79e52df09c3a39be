"""Servers that indexes are shared in."""

from __future__ import annotations

from tests.unit.plugins.responses_store.conftest import valkey, valkey_binary

__all__ = ["valkey", "valkey_binary"]
