"""Every case of the specification is tested, waits for something that is not built, or has a reason why not."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.spec import config_and_ops_md, datalayer_md, flowcontrol_md, plugins_md, prefix_md, protocol_md
from tests.spec.document import Capability, Document, named_in

DOCUMENTS = [
    module.DOCUMENT for module in (protocol_md, plugins_md, prefix_md, datalayer_md, flowcontrol_md, config_and_ops_md)
]
MODULES = [
    pytest.param(document, module, id=f"{document.name} in {module}") for document in DOCUMENTS for module in document.tested
]
WAITING = [
    pytest.param(capability, f"{document.name}: {what}", id=f"{document.name}: {what} for {capability.name}")
    for document in DOCUMENTS
    for capability, what in [
        *document.pending.items(),
        *((capability, promise) for promise, capability in document.promises.items()),
    ]
]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_each_case_has_one_place(document: Document) -> None:
    places = Counter(document.places())
    assert sorted(document.cases - places.keys()) == [], "without a place"
    assert sorted(places.keys() - document.cases) == [], "cases that the document does not have"
    assert [case for case, count in places.items() if count > 1] == [], "in two places"
    assert document.changed.keys() <= document.modules.keys(), "only what is tested can be tested otherwise"


def test_the_counts_are_those_of_the_documents() -> None:
    assert {document.name: len(document.cases) for document in DOCUMENTS} == {
        "protocol.md": 113,
        "plugins.md": 154,
        "prefix.md": 121,
        "datalayer.md": 131,
        "flowcontrol.md": 125,
        "config-and-ops.md": 168,
    }


@pytest.mark.parametrize(("document", "module"), MODULES)
def test_the_module_names_its_cases(document: Document, module: str) -> None:
    missing = set(document.listed(document.tested[module])) - named_in(module)
    assert sorted(missing) == [], f"write the number with what it means into the id or the name of its test in {module}"


def test_a_number_means_one_thing_in_a_module() -> None:
    seen = Counter((module, case) for document in DOCUMENTS for case, module in document.modules.items())
    assert [place for place, count in seen.items() if count > 1] == []


@pytest.mark.parametrize(("capability", "what"), WAITING)
def test_what_cases_wait_for_is_not_built(capability: Capability, what: str) -> None:
    assert not capability.is_built(), f"{capability.name} is built: write the tests of {what}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_a_case_that_another_document_has_too_is_tested_there(document: Document) -> None:
    others = {other.name: other for other in DOCUMENTS if other is not document}
    assert [case for case, (name, same) in document.same.items() if same not in others[name].modules] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_reasons_are_given(document: Document) -> None:
    assert all((*document.void.values(), *document.changed.values()))
