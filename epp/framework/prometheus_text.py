"""Reads a few wanted series of a Prometheus text page, without parsing the rest.

A model server's page has some 60 KB, of which five families matter; a full parse costs 300 times as much as looking for them.
Exemplars, timestamps and the end of an OpenMetrics page are understood, as some servers send one whatever they are asked for.
Source: prometheus/common: expfmt/text_parse.go (format 0.0.4); OpenMetrics 1.0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

MAX_PAGE_BYTES = 8 * 1024 * 1024
"""A page of eight engines has 0.34 MB; more than this is no metrics page."""

_NO_LABELS: Mapping[str, str] = MappingProxyType({})
_NAME_ENDS = (b"{", b" ", b"\t", b"\n")
_FIRST_BYTE = re.compile(rb"\s*[#a-zA-Z_:]")
_LABEL = re.compile(r'\s*(?:([a-zA-Z_][a-zA-Z0-9_]*)|"((?:[^"\\\n]|\\.)*)")\s*=\s*"((?:[^"\\\n]|\\.)*)"\s*(?:,|$)')
"""A name in quotes may have any characters: Prometheus 3."""
_LABEL_SET = re.compile(rb'\{((?:[^"}]|"(?:[^"\\]|\\.)*")*)\}')
_EXEMPLAR = b" # {"
_END_OF_OPENMETRICS = b"# EOF"
_ESCAPE = re.compile(r'\\([\\"n])')
_ESCAPED = {"\\": "\\", '"': '"', "n": "\n"}
_SPEC = re.compile(r"\s*([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(?:\{(.*)\}\s*)?")
_SPEC_LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",{}=]+))\s*(?:,|$)')


class UnreadablePageError(OSError):
    """What came is not a whole metrics page; nothing of it may be used."""


class Sample(NamedTuple):
    """One series at one time."""

    labels: Mapping[str, str]
    value: float
    timestamp: float = 0
    """In milliseconds, of OpenMetrics in seconds: only what is later on one page is told by it. 0 = none given."""


def check_page(page: bytes) -> None:
    """Refuse what is certainly no whole page. An empty page is fine: it has no series.

    Raises:
        UnreadablePageError: the last line is cut, or the text is of another kind (JSON, HTML, binary).
    """
    if not page:
        return
    if page[-1] != 0x0A and not _ends_as_openmetrics(page):
        raise UnreadablePageError("the metrics page is cut off: its last line has no end")
    if _FIRST_BYTE.match(page) is None and page.strip():
        raise UnreadablePageError(f"this is no Prometheus text page: it begins with {page[:20]!r}")


def _ends_as_openmetrics(page: bytes) -> bool:
    """Its last line says that the page is whole, with or without an end of its own."""
    return page.endswith(b"\n" + _END_OF_OPENMETRICS) or page == _END_OF_OPENMETRICS


class FamilyReader:
    """Finds the series of one name.

    Args:
        name: of the samples, such as ``vllm:num_requests_waiting``.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._name = name.encode()
        self._line = b"\n" + self._name
        self._starts = tuple(self._name + end for end in _NAME_ENDS)
        """A longer name that begins like ours does not count."""
        self._type = b"# TYPE " + self._name + b" "

    def read(self, page: bytes) -> list[Sample]:
        """All samples, in page order; the lines of a family must be together, as the format demands.

        Raises:
            ValueError: one of its lines is malformed, or it is a summary, which has no single value.
        """
        start = self._find(page)
        if start < 0:
            return []
        self._check_type(page, start)
        samples = []
        length = len(self._name)
        while True:
            end = page.find(b"\n", start)
            if end < 0:
                raise ValueError(f"{self.name}: the last line has no end")
            samples.append(_sample(self.name, page[start + length : end]))
            start = end + 1
            if not page.startswith(self._starts, start):
                return samples

    def _find(self, page: bytes) -> int:
        """Where the first line begins that is a sample of exactly this name; -1 if there is none."""
        if page.startswith(self._starts):
            return 0
        position = page.find(self._line)
        while position >= 0 and not page.startswith(self._starts, position + 1):
            position = page.find(self._line, position + 1)
        return position + 1 if position >= 0 else -1

    def _check_type(self, page: bytes, start: int) -> None:
        before = page.rfind(b"\n", 0, max(start - 1, 0)) + 1
        if not page.startswith(self._type, before, start):
            return
        kind = page[before + len(self._type) : start].strip()
        if kind in (b"summary", b"histogram"):
            raise ValueError(f"{self.name} is a {kind.decode()}, which has no single value")


@lru_cache(maxsize=4096)
def _sample(name: str, rest: bytes) -> Sample:
    """The sample of a line from behind its name to its end.

    Remembered, as the servers of a pool have the same labels and small numbers of requests.
    """
    labels = _NO_LABELS
    rest = rest.lstrip(b" \t")
    if rest.startswith(b"{"):
        label_set = _LABEL_SET.match(rest)
        if label_set is None:
            raise ValueError(f"{name}: a label set is not closed")
        try:
            labels = parse_labels(label_set.group(1))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        rest = rest[label_set.end() :]
    rest = rest.partition(_EXEMPLAR)[0]
    fields = rest.split()
    if not 1 <= len(fields) <= 2 or b"_" in rest or rest.endswith(b"\r"):
        raise ValueError(f"{name}: {rest.decode(errors='replace')!r} is no value")
    try:
        return Sample(labels, float(fields[0]), _timestamp(fields[1]) if len(fields) == 2 else 0)
    except ValueError:
        raise ValueError(f"{name}: {rest.decode(errors='replace')!r} is no value") from None


def _timestamp(text: bytes) -> float:
    """As written, which is an integer or, of OpenMetrics, a number of seconds.

    Raises:
        ValueError: no finite number.
    """
    timestamp = float(text)
    if not math.isfinite(timestamp):
        raise ValueError
    return timestamp


@lru_cache(maxsize=4096)
def parse_labels(text: bytes) -> Mapping[str, str]:
    """The labels between the braces of a sample.

    Label sets hardly ever change from one scrape to the next, so the last 4096 are remembered.

    Raises:
        ValueError: malformed.
    """
    decoded = text.decode(errors="replace")
    labels: dict[str, str] = {}
    position = 0
    while position < len(decoded):
        match = _LABEL.match(decoded, position)
        if match is None:
            if decoded[position:].strip():
                raise ValueError(f"the label set {{{decoded}}} is malformed at {decoded[position : position + 20]!r}")
            break
        bare, quoted, value = match.groups()
        name = bare or _unescaped(quoted)
        labels[name] = _unescaped(value)
        position = match.end()
    return MappingProxyType(labels)


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(_unescape, text) if "\\" in text else text


def _unescape(match: re.Match[str]) -> str:
    return _ESCAPED[match.group(1)]


@dataclass(frozen=True, slots=True)
class SeriesSpec:
    """A name and the labels that a series must have to be meant: ``name{label="value"}``."""

    name: str
    labels: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> SeriesSpec:
        """Read ``name`` or ``name{l1=v1,l2="v2"}``; blanks are allowed around every token.

        Raises:
            ValueError: anything else.
        """
        match = _SPEC.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not a metric selector; write name or name{{label=value}}")
        name, inner = match.groups()
        return cls(name, _spec_labels(text, inner) if inner is not None else ())

    def matches(self, labels: Mapping[str, str]) -> bool:
        """A series with these labels is meant; labels that the spec does not name do not matter."""
        return all(labels.get(name) == value for name, value in self.labels)

    def __str__(self) -> str:
        """The spec as it is written."""
        if not self.labels:
            return self.name
        labels = ",".join(f'{name}="{value}"' for name, value in self.labels)
        return f"{self.name}{{{labels}}}"


def _spec_labels(text: str, inner: str) -> tuple[tuple[str, str], ...]:
    labels: list[tuple[str, str]] = []
    position = 0
    while inner[position:].strip():
        match = _SPEC_LABEL.match(inner, position)
        if match is None:
            raise ValueError(f"{text!r}: {inner[position:].strip()!r} is not a list of label=value")
        name, quoted, bare = match.groups()
        value = bare if quoted is None else _ESCAPE.sub(_unescape, quoted)
        if not value:
            raise ValueError(f"{text!r}: label {name} has no value")
        labels.append((name, value))
        position = match.end()
    return tuple(labels)
