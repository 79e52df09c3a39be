"""A browser."""

from __future__ import annotations

import shutil

import pytest


@pytest.fixture(scope="session")
def chromium(pytestconfig: pytest.Config) -> str:
    """Path of Chromium; without it the test is skipped, or fails if it is required."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        reason = "chromium is not there: Debian's package chromium (apt-get install chromium)"
        if "chromium" in pytestconfig.getoption("--require").split(","):
            pytest.fail(reason)
        pytest.skip(reason)
    return found
