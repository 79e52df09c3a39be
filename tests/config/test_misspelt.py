"""Every misspelt key is reported at its own path and place, wherever it stands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.config.wording import step
from epp.errors import Severity
from tests.config.corpus import GOOD, findings, split

Location = tuple[str | int, ...]


def keys_below(value: object, location: Location = ()) -> Iterator[Location]:
    """Locations of all keys."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*location, key)
            yield from keys_below(item, (*location, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from keys_below(item, (*location, index))


def rename(document: Any, location: Location, new: str) -> Any:
    """A copy with one key renamed."""
    if isinstance(document, list):
        return [rename(item, location[1:], new) if index == location[0] else item for index, item in enumerate(document)]
    if len(location) == 1:
        return {new if key == location[0] else key: item for key, item in document.items()}
    return {key: rename(item, location[1:], new) if key == location[0] else item for key, item in document.items()}


def written(location: Location) -> str:
    """A location as findings write it."""
    path = ""
    for part in location:
        path = step(path, part)
    return path


_FREE = ("matchLabels", "labels", "attributes")
"""Mappings whose keys are the operator's own."""
SAMPLES = [
    (path.stem, document, location)
    for path in GOOD
    if isinstance(document := yaml.safe_load(split(path)[0]), dict)
    for location in keys_below(document)
    if not any(part in _FREE for part in location[:-1])
]


@settings(deadline=None)
@given(st.sampled_from(SAMPLES), st.integers(0, 99), st.sampled_from("qxz"))
def test_each_misspelt_key_is_reported_at_its_path(sample: tuple[str, Any, Location], position: int, letter: str) -> None:
    _, document, location = sample
    key = str(location[-1])
    cut = position % (len(key) + 1)
    wrong = key[:cut] + letter + key[cut:]
    text = yaml.safe_dump(rename(document, location, wrong), sort_keys=False, allow_unicode=True)
    path = written((*location[:-1], wrong))
    found = [f for f in findings(text) if f.path == path and f.code in ("CFG031", "CFG053")]
    assert len(found) == 1
    assert found[0].severity is Severity.ERROR
    line = text.splitlines()[found[0].line - 1]
    assert line[found[0].column - 1 :].startswith(wrong)


def test_samples_cover_parameters_and_the_fixed_schema() -> None:
    depths = {len(location) for _, _, location in SAMPLES}
    assert {1, 3, 4, 6} <= depths
    assert len(SAMPLES) > 500


@pytest.mark.parametrize("name", ["plugins", "schedulingProfiles"])
def test_other_case_is_an_unknown_key(name: str) -> None:
    text = f"apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n{name.upper()}: []\n"
    found = [f for f in findings(text) if f.severity is Severity.ERROR]
    assert [(f.code, f.fix) for f in found] == [("CFG031", f'did you mean "{name}"?')]
