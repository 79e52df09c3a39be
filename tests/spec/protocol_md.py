"""``protocol.md``: conformance of the ext_proc stream (C)."""

from __future__ import annotations

from tests.spec.document import Document

_CONFORMANCE = "tests/conformance"

DOCUMENT = Document(
    "protocol.md",
    counts={"C": 113},
    tested={
        f"{_CONFORMANCE}/test_routing.py": "C1-27 C29-32",
        f"{_CONFORMANCE}/test_plugins.py": "C28 C56 C80-82 C85 C87 C88",
        f"{_CONFORMANCE}/test_subset.py": "C33-44",
        f"{_CONFORMANCE}/test_flow_control.py": "C54 C94 C95",
        f"{_CONFORMANCE}/test_rejected.py": "C45-53 C55 C57-61",
        f"{_CONFORMANCE}/test_response.py": "C62-64 C75-79 C83 C84 C89",
        f"{_CONFORMANCE}/test_usage.py": "C65-74",
        f"{_CONFORMANCE}/test_books.py": "C86",
        f"{_CONFORMANCE}/test_ends.py": "C90-93 C96-100",
        f"{_CONFORMANCE}/test_modes.py": "C101-106 C110-112",
        f"{_CONFORMANCE}/test_process.py": "C108 C109",
        "tests/envoy/test_end_to_end.py": "C113",
        "tests/kube/test_objects.py": "C107",
    },
    pending={},
    changed={
        "C49": "a list of lists of token ids is routed, as OpenAI's API and all engines have it",
        "C53": "the refusal has the dropped reason rejected-saturated, as flow 28 has it",
        "C57": "a denied request gets 429, not 500, which makes gateways try again",
    },
)
