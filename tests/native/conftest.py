"""Tests of the extension; without it they are skipped, or fail if ``--require native`` says that it must be there."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

collect_ignore_glob: list[str] = []
if find_spec("epp_native") is None:
    collect_ignore_glob = [
        "test_machine*.py",
        "test_pages*.py",
        "test_seam*.py",
        "test_process*.py",
        "test_prompt*.py",
        "test_prefix*.py",
    ]


def pytest_configure(config: pytest.Config) -> None:
    """Whoever builds the extension wants its tests to run."""
    if "native" in config.getoption("--require").split(",") and find_spec("epp_native") is None:
        raise pytest.UsageError("--require native, but the extension epp_native is not installed")
