"""Options that all tests share."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Tests that need a program skip without it; CI names the programs that must be there."""
    parser.addoption("--require", default="", metavar="NAMES", help="comma-separated programs whose absence fails, e.g. envoy")
