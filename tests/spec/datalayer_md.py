"""``datalayer.md``: Kubernetes events (K), objects (O), election and health (L), files (F), wiring (W), metrics pages (M)."""

from __future__ import annotations

from tests.spec.document import Document

_DATALAYER = "tests/unit/datalayer"
_CONFIG = "config-and-ops.md"

DOCUMENT = Document(
    "datalayer.md",
    counts={"K": 39, "O": 14, "L": 5, "F": 20, "W": 23, "M": 30},
    tested={
        f"{_DATALAYER}/test_objects.py": "O1-14",
        "tests/kube/test_events.py": "K1-24 K26 K28 K29 K36 K39",
        "tests/kube/test_outages.py": "K25 K30-35 K38",
        "tests/kube/test_objects.py": "K27 L5",
        "tests/kube/test_election.py": "L1-3",
        "tests/unit/discovery/test_kube_sync.py": "K37",
        "tests/unit/process/test_health.py": "L4",
        "tests/unit/discovery/test_file_discovery.py": "F1-16",
        "tests/unit/process/test_process.py": "F17",
        "tests/unit/commands/test_flags.py": "F19 F20",
        "tests/config/test_meaning.py": "W1 W6",
        f"{_DATALAYER}/test_models.py": "W2 W7 M28",
        "tests/config/test_references.py": "W8",
        "tests/config/test_notifications.py": "W10",
        f"{_DATALAYER}/test_core_metrics.py": "W9 M1-20 M23-27",
        f"{_DATALAYER}/test_collector.py": "W11-18",
        f"{_DATALAYER}/test_metrics_source.py": "W19-21 M22",
        "tests/config/test_flow_control.py": "W22",
        "tests/unit/pool/test_numbers.py": "W23",
        f"{_DATALAYER}/test_prometheus_text.py": "M21",
        f"{_DATALAYER}/test_dcgm.py": "M29",
    },
    changed={
        "F19": "a port named twice is an error, not dropped in silence: the ports are distinct in config-and-ops.md",
    },
    void={
        "M30": "a measurement, not a test: bench.micro.scrape reads 100 endpoints every 50 ms and prints the share of a core"
    },
    same={
        "F18": (_CONFIG, "X103"),
        "W3": (_CONFIG, "V24"),
        "W4": (_CONFIG, "V26"),
        "W5": (_CONFIG, "X53"),
    },
)
