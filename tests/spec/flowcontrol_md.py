"""``flowcontrol.md``: saturation, admission, queues, eviction ("flow" and a number), and what holds always (I)."""

from __future__ import annotations

from tests.spec.document import Document

DOCUMENT = Document(
    "flowcontrol.md",
    counts={"flow ": 98, "I": 27},
    tested={
        "tests/unit/plugins/test_detectors.py": "1-18 21",
        "tests/config/test_flow_control.py": "19 20 22 23 33 68 95-97 I27",
        "tests/unit/decision/test_admission.py": "28-32",
        "tests/unit/decision/test_director.py": "54",
        "tests/unit/decision/test_flow_control.py": "89",
        "tests/unit/flowcontrol/test_stages.py": "24-27 I22",
        "tests/unit/flowcontrol/test_queueing.py": "34-47 55",
        "tests/unit/flowcontrol/test_bands.py": "56",
        "tests/unit/flowcontrol/test_time.py": "57-67 69-71",
        "tests/unit/flowcontrol/test_dispatch.py": "82 83",
        "tests/unit/flowcontrol/test_eviction.py": "84-88 90 I23",
        "tests/unit/flowcontrol/test_outcomes.py": "I24",
        "tests/unit/plugins/test_ordering_policies.py": "48-50 I11",
        "tests/unit/plugins/test_fairness_policies.py": "51-53 I10",
        "tests/unit/plugins/test_usage_limit_policies.py": "72-75 77-81 I20 I21",
        "tests/unit/telemetry/test_flow_control.py": "98",
        "tests/property/test_flow_control.py": "I1-9 I12-19 I25 I26",
        "tests/unit/plugins/test_parameters.py": "76",
        "tests/unit/plugins/test_request_plugins.py": "91 92",
        "tests/unit/plugins/latency/test_admitter.py": "93 94",
    },
    changed={
        "flow 67": "the deadline is that of a gRPC client; one of the ext_proc call ends the stream, as a client that leaves",
    },
)
