"""The completed document: complete, stable, without secrets."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.config.effective import fingerprint, mask, to_yaml
from epp.config.loaded import LoadFlags
from epp.config.report import Report
from epp.config.yaml_nodes import plain
from epp.config.yaml_read import read_nodes
from tests.config.corpus import GOOD, load, split


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_loading_it_again_changes_nothing(path: Path) -> None:
    first = load(split(path)[0]).config
    again = load(to_yaml(first.effective)).config
    assert again.effective == first.effective
    assert again.sha256 == first.sha256
    assert again.added == ()
    assert again.profiles == first.profiles
    assert (again.handler, again.parsers, again.sources) == (first.handler, first.parsers, first.sources)
    assert (again.discovery, again.detector) == (first.discovery, first.detector)
    assert again.gates == {**first.gates, "enableLegacyMetrics": False}


def test_it_is_served_again_too() -> None:
    flags = LoadFlags(for_serve=True)
    first = load("", flags).config
    assert load(to_yaml(first.effective), flags).config.effective == first.effective


def test_secrets_are_masked_in_it() -> None:
    text = (
        "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n"
        "  - type: precise-prefix-cache-scorer\n    parameters:\n      indexerConfig:\n"
        '        kvBlockIndexConfig: {redisConfig: {address: "redis://user:hunter2@kv:6379"}}\n'
        "        tokenizersPoolConfig: {modelName: m, hf: {enabled: true, huggingFaceToken: hf_hunter2}}\n"
    )
    shown = to_yaml(load(text).config.effective)
    assert "hunter2" not in shown
    assert "address: redis://***@kv:6379" in shown
    assert "huggingFaceToken: '***'" in shown


MASKED = [
    ({"password": "x"}, {"password": "***"}),
    ({"apiKey": "x", "huggingFaceToken": "x"}, {"apiKey": "***", "huggingFaceToken": "***"}),
    ({"headers": {"Authorization": "x", "X-API-Key": "x", "Accept": "y"}},
     {"headers": {"Authorization": "***", "X-API-Key": "***", "Accept": "y"}}),
    ({"clientSecret": ["x"]}, {"clientSecret": ["***"]}),
    ({"blockSizeTokens": 16, "tokenProcessor": {"seed": "4"}}, {"blockSizeTokens": 16, "tokenProcessor": {"seed": "4"}}),
    ({"password": ""}, {"password": ""}),
    ({"uri": "mongodb://u:p@h1,h2/db?x=1"}, {"uri": "mongodb://***@h1,h2/db?x=1"}),
    ({"uri": "http://host/a@b"}, {"uri": "http://host/a@b"}),
]  # fmt: skip


@pytest.mark.parametrize(("document", "expected"), MASKED)
def test_mask(document: dict[str, object], expected: dict[str, object]) -> None:
    assert mask(document) == expected


text = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]))
words = st.sampled_from(
    ["1e8", "yes", "null", "12:30", "0o17", "~", "<<", "=", "- a", "1_000", "true", "*a", "&a", "2026-01-01"]
)
values = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | text | words,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(text | words, children, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(text | words, values, min_size=1, max_size=5))
def test_yaml_that_is_written_reads_as_the_same_values(document: dict[str, object]) -> None:
    report = Report("f")
    assert plain(read_nodes(to_yaml(document).encode(), report)) == document
    assert report.findings == ()


@given(st.dictionaries(text, values, max_size=5))
def test_the_fingerprint_does_not_depend_on_the_order_of_keys(document: dict[str, object]) -> None:
    assert fingerprint(dict(reversed(list(document.items())))) == fingerprint(document)
