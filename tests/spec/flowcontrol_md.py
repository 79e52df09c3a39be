"""``flowcontrol.md``: saturation, admission, queues, eviction ("flow" and a number), and what holds always (I)."""

from __future__ import annotations

from tests.spec.capabilities import EVICTION, FLOW_CONTROL
from tests.spec.document import Document, plugin_type

DOCUMENT = Document(
    "flowcontrol.md",
    counts={"flow ": 98, "I": 27},
    tested={
        "tests/unit/plugins/test_detectors.py": "1-18 21",
        "tests/config/test_flow_control.py": "19 20 22 23 33 68 95-97 I27",
        "tests/unit/decision/test_admission.py": "28-32",
        "tests/unit/decision/test_director.py": "54",
        "tests/unit/plugins/test_parameters.py": "76",
        "tests/unit/plugins/test_request_plugins.py": "91 92",
        "tests/unit/plugins/latency/test_admitter.py": "93 94",
    },
    pending={
        # Of I22 what a single detector must hold is tested with the detectors.
        FLOW_CONTROL: "24-27 34-47 55-67 69-71 82 83 98 I1-9 I12-19 I22 I24-26",
        plugin_type("edf-ordering-policy"): "48 I11",
        plugin_type("slo-deadline-ordering-policy"): "49 50",
        plugin_type("round-robin-fairness-policy"): "I10",
        plugin_type("program-aware-fairness"): "51-53",
        plugin_type("priority-holdback-policy"): "72-75 I20",
        plugin_type("soft-reflective-ceiling-policy"): "77-80 I21",
        plugin_type("static-usage-limit-policy"): "81",
        EVICTION: "84-90 I23",
    },
    changed={
        "flow 6": "the number of stale endpoints is part of the plugin's debug page until the engine exports it",
    },
)
