"""``epp check --fix``: older forms become today's, and everything else stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from epp.commands.check import main
from epp.config.fixes import fix
from epp.config.load import load_config
from epp.config.loaded import ConfigSource, LoadedConfig
from epp.errors import ConfigError
from tests.config.corpus import GOOD, registry, split

HEADER = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n"
QUEUE = "plugins:\n- type: queue-scorer # first\n"


def load(source: ConfigSource) -> LoadedConfig:
    return load_config(source, registry())


CASES = {
    "a type": (
        HEADER + "plugins:\n- type: prefill-header-handler   # writes headers\n- {type: queue-scorer}\n",
        HEADER + "plugins:\n- type: disagg-headers-handler   # writes headers\n- {type: queue-scorer}\n",
        ["WRN004"],
    ),
    "a quoted type": (
        HEADER + "plugins: [{type: 'prefill-header-handler', name: h}, {type: queue-scorer}]\n",
        HEADER + "plugins: [{type: 'disagg-headers-handler', name: h}, {type: queue-scorer}]\n",
        ["WRN004"],
    ),
    "a misspelt group": (
        "apiVersion: inference.networking.k8s-x.io/v1alpha1 # copied\nkind: EndpointPickerConfig\n" + QUEUE,
        "apiVersion: inference.networking.x-k8s.io/v1alpha1 # copied\nkind: EndpointPickerConfig\n" + QUEUE,
        ["WRN001"],
    ),
    "no header": (
        "# ours\n" + QUEUE,
        "# ours\napiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig\n" + QUEUE,
        ["WRN002", "WRN002"],
    ),
    "no kind": (
        "---\napiVersion: llm-d.ai/v1alpha1\n" + QUEUE,
        "---\nkind: EndpointPickerConfig\napiVersion: llm-d.ai/v1alpha1\n" + QUEUE,
        ["WRN002"],
    ),
    "older booleans and numbers": (
        HEADER + "dataLayer: {injectDefaults: yes}\n" + QUEUE + "- {type: load-aware-scorer, parameters: {threshold: 1_000}}\n",
        HEADER + "dataLayer: {injectDefaults: true}\n" + QUEUE + "- {type: load-aware-scorer, parameters: {threshold: 1000}}\n",
        ["WRN016", "WRN016"],
    ),
    "gates in a row": (
        HEADER + "featureGates: [enableLegacyMetrics, flowControl=false, pluggableParser] # gates\n" + QUEUE,
        HEADER + "featureGates: [flowControl=false] # gates\n" + QUEUE,
        ["WRN008", "WRN008"],
    ),
    "the only gate": (
        HEADER + "featureGates: [enableLegacyMetrics]\n" + QUEUE,
        HEADER + "featureGates: []\n" + QUEUE,
        ["WRN008"],
    ),
    "gates below each other": (
        HEADER + "featureGates:\n# old\n- enableLegacyMetrics  # gone\n- flowControl=false\n" + QUEUE,
        HEADER + "featureGates:\n# old\n- flowControl=false\n" + QUEUE,
        ["WRN008"],
    ),
    "parser in a row": (
        HEADER + "parser: {pluginRef: vllmhttp-parser} # one\n" + QUEUE,
        HEADER + "requestHandler: {parsers: [{pluginRef: vllmhttp-parser}]} # one\n" + QUEUE,
        ["WRN003"],
    ),
    "parser below": (
        HEADER + "parser: # one\n  # the only one\n  pluginRef: vllmhttp-parser # speaks vLLM\n" + QUEUE,
        HEADER + "requestHandler: # one\n  # the only one\n  parsers:\n  - pluginRef: vllmhttp-parser # speaks vLLM\n" + QUEUE,
        ["WRN003"],
    ),
    "parser of the request handler": (
        HEADER + "requestHandler:\n  parser:\n    pluginRef: vllmhttp-parser\n" + QUEUE,
        HEADER + "requestHandler:\n  parsers:\n    - pluginRef: vllmhttp-parser\n" + QUEUE,
        ["WRN003"],
    ),
    "a parser beside others": (
        HEADER + "requestHandler: {parser: {pluginRef: openai-parser}, parsers: [{pluginRef: vllmhttp-parser}]}\n" + QUEUE,
        HEADER + "requestHandler: {parser: {pluginRef: openai-parser}, parsers: [{pluginRef: vllmhttp-parser}]}\n" + QUEUE,
        [],
    ),
    "what only a person can repair stays": (
        HEADER + "plugins: [{type: kv-cache-scorer, name: k}, {type: queue-scorer, parameters: {}}]\nflowControl: {}\n",
        HEADER
        + "plugins: [{type: kv-cache-utilization-scorer, name: k}, {type: queue-scorer, parameters: {}}]\nflowControl: {}\n",
        ["WRN004"],
    ),
}


@pytest.mark.parametrize(("before", "after", "codes"), CASES.values(), ids=CASES)
def test_what_is_repaired(before: str, after: str, codes: list[str]) -> None:
    fixed = fix(before, "epp.yaml", load)
    assert fixed.text == after
    assert [finding.code for finding in fixed.repaired] == codes
    assert fix(after, "epp.yaml", load) == (after, ())


PROFILES = """schedulingProfiles:
- {name: de, plugins: [{pluginRef: queue-scorer}]}
- {name: pre, plugins: [{pluginRef: queue-scorer}]}
"""
FLAT = (
    HEADER
    + """plugins:
- {type: queue-scorer}
- {type: always-disagg-pd-decider}
- type: disagg-profile-handler
  parameters:
    decodeProfile: de # where answers are made
    prefillDeciderPluginName: always-disagg-pd-decider  # always
    # the other side
    prefillProfile: "pre"   # where prompts are read
"""
    + PROFILES
)
NESTED = (
    HEADER
    + """plugins:
- {type: queue-scorer}
- {type: always-disagg-pd-decider}
- type: disagg-profile-handler
  parameters:
    profiles:
      decode: de # where answers are made
      prefill: "pre"   # where prompts are read
    deciders:
      prefill: always-disagg-pd-decider  # always
    # the other side
"""
    + PROFILES
)


def test_flat_parameters_become_nested_ones() -> None:
    fixed = fix(FLAT, "epp.yaml", load)
    assert fixed.text == NESTED
    assert [finding.code for finding in fixed.repaired] == ["WRN006"] * 3


def test_flat_parameters_in_a_row() -> None:
    row = "{type: disagg-profile-handler, parameters: {decodeProfile: de, stageOrder: decode-first, prefillProfile: pre}}"
    nested = "{type: disagg-profile-handler, parameters: {profiles: {decode: de, prefill: pre}, stageOrder: decode-first}}"
    text = HEADER + "plugins: [{type: queue-scorer}, %s]\n" + PROFILES
    assert fix(text % row, "epp.yaml", load).text == text % nested


AMBIGUOUS = {"V06-flat-parameters": {"WRN006"}}
"""Two older parameters that would have one place: a person has to choose."""


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_every_sample_means_the_same_and_has_nothing_left_to_repair(path: Path) -> None:
    text, _ = split(path)
    fixed = fix(text, path.name, load)
    left = {finding.code for finding in load(ConfigSource.from_text(fixed.text)).findings if finding.edit is not None}
    assert left == AMBIGUOUS.get(path.stem, set())
    assert text.count("#") == fixed.text.count("#")


def test_a_document_with_errors_is_not_touched() -> None:
    with pytest.raises(ConfigError):
        fix("kind: EndpointPickerConfig\nplugins: [{type: nonsense}]\n", "epp.yaml", load)


def test_a_file_is_repaired_in_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    real, link = tmp_path / "real.yaml", tmp_path / "link.yaml"
    real.write_bytes(("# ours\n" + QUEUE).replace("\n", "\r\n").encode("utf-8-sig"))
    real.chmod(0o640)
    link.symlink_to(real)
    assert main(["--fix", str(link)]) == 0
    assert link.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert real.read_bytes().decode("utf-8-sig").splitlines() == [
        "# ours",
        "apiVersion: inference.networking.x-k8s.io/v1alpha1",
        "kind: EndpointPickerConfig",
        *QUEUE.splitlines(),
    ]
    assert real.read_bytes().startswith(b"\xef\xbb\xbf# ours\r\napiVersion")
    out = capsys.readouterr()
    assert out.err == f"{link}: fixed WRN002: apiVersion is missing\n{link}: fixed WRN002: kind is missing\n"
    assert out.out == f"{link}: valid: 1 plugin, 1 profile (default), 0 warnings\n"


def test_a_file_that_needs_no_repair_is_not_written(tmp_path: Path) -> None:
    file = tmp_path / "epp.yaml"
    file.write_text(HEADER + QUEUE)
    before = file.stat().st_mtime_ns, file.stat().st_ino
    assert main(["--fix", str(file)]) == 0
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == before
