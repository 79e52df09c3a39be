"""Options that all tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from epp.framework import log

# Whether a machine is busy says nothing of what a property says.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Tests that need a program skip without it; CI names the programs that must be there."""
    parser.addoption("--require", default="", metavar="NAMES", help="comma-separated programs whose absence fails, e.g. envoy")


@pytest.fixture(autouse=True)
def _verbosity() -> Iterator[None]:
    """The log is as talkative after a test as before it, also where a command was run in this process."""
    before = log.verbosity()
    yield
    log.set_verbosity(before)


@pytest.fixture
def debug_log() -> Iterator[None]:
    """Lines of the debug log are written."""
    before = log.verbosity()
    log.set_verbosity(log.DEBUG)
    yield
    log.set_verbosity(before)
