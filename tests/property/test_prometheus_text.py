"""The reader of wanted series equals a full parser of the format."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from epp.framework.prometheus_text import FamilyReader, UnreadablePageError, check_page

NAMES = ("q", "q_depth", "q:depth", "vllm:num_requests_waiting", "vllm:num_requests_waiting_by_reason")
LABELS = ("engine", "model_name", "l1")

_values = st.one_of(
    st.integers(-(10**6), 10**12).map(str),
    st.floats(allow_nan=False).map(lambda x: {math.inf: "+Inf", -math.inf: "-Inf"}.get(x, repr(x))),
    st.just("NaN"),
)
_booleans = st.booleans()
_texts = st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp")) | st.sampled_from('\\"\n,{} ='), max_size=12)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


@st.composite
def _samples(draw: st.DrawFn, name: str) -> str:
    labels = draw(st.dictionaries(st.sampled_from(LABELS), _texts, max_size=3))
    inner = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
    has_braces: bool = bool(labels) or draw(_booleans)
    braces = f"{{{inner}}}" if has_braces else ""
    timestamp = draw(st.one_of(st.just(""), st.integers(0, 2**41).map(lambda ms: f" {ms}")))
    return f"{name}{braces} {draw(_values)}{timestamp}\n"


@st.composite
def page_texts(draw: st.DrawFn) -> str:
    page = ""
    for name in draw(st.permutations(NAMES)):
        lines = draw(st.lists(_samples(name), max_size=4))
        if draw(st.booleans()):
            page += f"# HELP {name} About {name} 1\n"
        if draw(st.booleans()):
            page += f"# TYPE {name} gauge\n"
        page += "".join(lines)
    return page


def _key(labels: dict[str, str], value: float, timestamp_ms: float) -> tuple[object, ...]:
    return sorted(labels.items()), "NaN" if math.isnan(value) else value, round(timestamp_ms)


@given(page_texts())
def test_every_family_is_read_as_a_full_parser_reads_it(page: str) -> None:
    """For any legal page and any name: the same samples, in the same order."""
    expected: dict[str, list[tuple[object, ...]]] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            timestamp_ms = float(sample.timestamp) * 1000 if sample.timestamp is not None else 0
            expected.setdefault(sample.name, []).append(_key(sample.labels, sample.value, timestamp_ms))
    for name in NAMES:
        read = [_key(dict(s.labels), s.value, s.timestamp) for s in FamilyReader(name).read(page.encode())]
        assert read == expected.get(name, [])


@given(page_texts(), st.data())
def test_a_cut_page_is_refused(page: str, data: st.DataObject) -> None:
    """A prefix that does not end where a line ends is never taken for a whole page."""
    whole = page.encode()
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    if not cut or cut.endswith(b"\n"):
        check_page(cut)
        return
    with pytest.raises(UnreadablePageError):
        check_page(cut)


@given(st.binary(max_size=300), st.sampled_from(NAMES))
def test_any_bytes_are_read_or_refused(page: bytes, name: str) -> None:
    """Garbage gives samples or the one allowed error."""
    try:
        check_page(page)
        FamilyReader(name).read(page + name.encode() + b" 1\n")
    except (UnreadablePageError, ValueError):
        return
