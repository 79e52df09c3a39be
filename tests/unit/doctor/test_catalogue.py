"""Each kind of finding is found by some case, and only those of the catalogue are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import epp.doctor
from epp.doctor.catalogue import CATALOGUE, finding
from epp.errors import Severity
from tests.unit.doctor import (
    test_certificates,
    test_cluster,
    test_engines,
    test_envoy,
    test_examine,
    test_kv_events,
    test_picker_and_pool,
    test_profiles,
    test_queues,
)

TABLES = (
    test_certificates,
    test_cluster,
    test_engines,
    test_envoy,
    test_examine,
    test_kv_events,
    test_picker_and_pool,
    test_profiles,
    test_queues,
)


def test_every_kind_of_finding_has_a_case() -> None:
    assert set().union(*(table.covered() for table in TABLES)) == set(CATALOGUE)


def test_the_code_names_no_other_kind() -> None:
    folder = Path(epp.doctor.__file__).parent
    named = {code for path in folder.rglob("*.py") for code in re.findall(r'"([A-Z]{3}\d{3})"', path.read_text())}
    assert named == set(CATALOGUE)


@pytest.mark.parametrize("code", CATALOGUE)
def test_a_finding_has_the_severity_of_its_kind(code: str) -> None:
    assert finding(code, "file", "path", "what", "fix").severity is CATALOGUE[code].severity
    assert not CATALOGUE[code].meaning.endswith(".")


def test_severities_are_those_of_findings() -> None:
    assert {rule.severity for rule in CATALOGUE.values()} == set(Severity)
