"""``epp check --explain``."""

from __future__ import annotations

from pathlib import Path

import pytest

from epp.commands.check import main
from epp.config.explained import explained
from epp.config.load import load_config
from epp.config.loaded import ConfigSource
from tests.config.corpus import GOOD, registry, split
from tests.config.doubles import HEADER

DOCUMENT = (
    HEADER
    + """featureGates: [flowControl]
plugins:
- {type: by-label, parameters: {label: tier, validValues: [gold]}}
- {type: queue-scorer}
- {type: active-request-scorer, name: mine}
- {type: file-discovery, parameters: {path: /x}}
dataLayer: {discovery: {pluginRef: file-discovery}}
flowControl: {defaultRequestTTL: 1s}
schedulingProfiles:
- name: default
  plugins: [{pluginRef: by-label}, {pluginRef: queue-scorer, weight: 3}, {pluginRef: mine}]
"""
)


def test_a_document_in_sentences() -> None:
    text = explained(load_config(ConfigSource.from_text(DOCUMENT), registry()))
    assert text.startswith("Endpoints are found by file-discovery: ")
    for line in (
        "While the pool is full, requests wait in queues by priority and flow (flowControl).\n",
        'Profile "default":\n  first filter by by-label: keeps endpoints ',
        "  rate by queue-scorer × 3, 75% of the total: prefers endpoints with a short waiting queue.\n",
        "  pick by max-score-picker: picks the endpoints with the highest totals; ties at random.\n",
        "Told of the end of requests: mine.\n",
    ):
        assert line in text


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_every_sample_can_be_explained(path: Path) -> None:
    config = load_config(ConfigSource.from_text(split(path)[0]), registry())
    text = explained(config)
    for plugin in config.plugins:
        assert plugin.name in text or plugin.declared
    assert max(map(len, text.splitlines())) <= 110


def test_the_command_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "epp.yaml"
    file.write_text(DOCUMENT)
    assert main(["--explain", str(file)]) == 0
    assert capsys.readouterr().out.startswith("Endpoints are found by file-discovery")
    file.write_text("kind: [")
    assert main(["--explain", str(file)]) == 1
