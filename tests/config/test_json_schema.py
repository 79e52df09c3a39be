"""``epp check --schema``: documents against the schema that editors use."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from epp.commands.check import main
from epp.config.report import Report
from epp.config.yaml_nodes import plain
from epp.config.yaml_read import read_nodes
from epp.plugin_pages.json_schema import document_schema
from tests.config.corpus import BAD, GOOD, registry, split


@cache
def validator() -> Draft7Validator:
    return Draft7Validator(document_schema(registry()))


def document(text: str) -> Any:
    return plain(read_nodes(text.encode(), Report("")))


def problems(text: str) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in validator().iter_errors(document(text))]


def test_the_schema_is_one() -> None:
    Draft7Validator.check_schema(document_schema(registry()))


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--schema"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["title"] == "EndpointPickerConfig"
    assert printed["$schema"] == "http://json-schema.org/draft-07/schema#"


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_what_loads_has_no_problems_in_an_editor(path: Path) -> None:
    assert problems(split(path)[0]) == []


HEADER = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        pytest.param("apiVersion: v9\nkind: EndpointPickerConfig\n", "$.apiVersion", id="another version"),
        pytest.param(HEADER + "nonsense: 1\n", "$", id="an unknown key"),
        pytest.param(HEADER + "plugins: [{type: nonsense}]\n", "$.plugins[0].type", id="an unknown type"),
        pytest.param(HEADER + "plugins: [{name: x}]\n", "$.plugins[0]", id="no type"),
        pytest.param(
            HEADER + "plugins: [{type: load-aware-scorer, parameters: {threshold: many}}]\n",
            "$.plugins[0].parameters",
            id="a parameter of the wrong kind",
        ),
        pytest.param(
            HEADER + "plugins: [{type: queue-scorer, parameters: {a: 1}}]\n",
            "$.plugins[0].parameters",
            id="an unknown parameter",
        ),
        pytest.param(
            HEADER + "plugins: [{type: active-request-scorer, parameters: {requestTimeout: 30}}]\n",
            "$.plugins[0].parameters",
            id="a duration without a unit",
        ),
        pytest.param(
            HEADER + "flowControl: {priorityBands: [{priority: high}]}\n",
            "$.flowControl.priorityBands[0].priority",
            id="a word",
        ),
        pytest.param(
            HEADER + "schedulingProfiles: [{plugins: []}]\n", "$.schedulingProfiles[0]", id="a profile without a name"
        ),
        pytest.param(HEADER + "featureGates: [nonsense]\n", "$.featureGates[0]", id="an unknown gate"),
    ],
)
def test_what_an_editor_marks(text: str, path: str) -> None:
    found = [problem.split(":", 1)[0] for problem in problems(text)]
    assert path in found, found


FORMAL = ("CFG031", "CFG032", "CFG050", "CFG052", "CFG053", "CFG054", "CFG062")
"""Mistakes of form, which a schema can see."""


def formal(path: Path) -> bool:
    codes = re.findall(r"error (CFG\d+)", path.read_text())
    return bool(codes) and all(code in FORMAL for code in codes)


@pytest.mark.parametrize("path", list(filter(formal, BAD)), ids=lambda path: path.stem)
def test_mistakes_of_form_are_marked(path: Path) -> None:
    assert problems(split(path)[0])
