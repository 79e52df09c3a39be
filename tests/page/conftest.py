"""Pickers with a page, and a browser."""

from __future__ import annotations

import shutil

import pytest

CONFIG = """\
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: token-producer
- type: queue-scorer
- type: kv-cache-utilization-scorer
- type: max-score-picker
schedulingProfiles:
- name: default
  plugins:
  - {pluginRef: queue-scorer, weight: 2}
  - {pluginRef: kv-cache-utilization-scorer}
  - {pluginRef: max-score-picker}
"""


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
