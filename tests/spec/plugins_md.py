"""``plugins.md``: the scheduling cycle (S), loading (L), scorers (C), pickers (P), filters (F), handlers and hooks (H)."""

from __future__ import annotations

from tests.spec.document import Document

_PLUGINS = "tests/unit/plugins"

DOCUMENT = Document(
    "plugins.md",
    counts={"S": 23, "L": 30, "C": 49, "P": 10, "F": 17, "H": 25},
    tested={
        "tests/unit/scheduling/test_profile.py": "S1-7 S10 S11 S21 S22",
        f"{_PLUGINS}/test_profiles.py": "S12 S13 S23",
        "tests/unit/scheduling/test_scheduler.py": "S14 S16-20",
        "tests/unit/decision/test_refusals.py": "S15",
        "tests/config/test_loading.py": "L1-30",
        f"{_PLUGINS}/test_load_scorers.py": "C1-9",
        f"{_PLUGINS}/test_active_request.py": "C10-15",
        f"{_PLUGINS}/test_no_hit_lru.py": "C16-22",
        f"{_PLUGINS}/test_prefix_scorers.py": "C23-25",
        f"{_PLUGINS}/test_lora_affinity.py": "C26 C27",
        f"{_PLUGINS}/test_session_affinity.py": "C28-31",
        f"{_PLUGINS}/test_context_length_aware.py": "C32-36 F12 F13",
        f"{_PLUGINS}/latency/test_weights.py": "C37-39",
        f"{_PLUGINS}/latency/test_scorer.py": "C40-42",
        f"{_PLUGINS}/test_inflight_load.py": "C43",
        f"{_PLUGINS}/test_latency_plugins.py": "C44-46 F14",
        f"{_PLUGINS}/test_attribute_plugins.py": "C47 C48 F15",
        f"{_PLUGINS}/test_topology.py": "C49 F17",
        f"{_PLUGINS}/test_pickers.py": "P1-10",
        f"{_PLUGINS}/test_label_filters.py": "F1-11",
        f"{_PLUGINS}/test_detectors.py": "F16",
        f"{_PLUGINS}/test_pd_profile_handler.py": "H1-6",
        f"{_PLUGINS}/test_deciders.py": "H7-11",
        f"{_PLUGINS}/test_disagg_profile_handler.py": "H12-14",
        f"{_PLUGINS}/test_request_plugins.py": "H15-18 H23",
        f"{_PLUGINS}/test_response_plugins.py": "H19 H20",
        f"{_PLUGINS}/test_other_profile_handlers.py": "H21",
        f"{_PLUGINS}/latency/test_admitter.py": "H22",
        f"{_PLUGINS}/test_usage_limit_policies.py": "H24 H25",
    },
    void={
        "S8": "a scorer returns a list as long as the candidates; a shorter one counts as 0 for all",
        "S9": "a scorer returns scores by position, so there is no score of somebody who is no candidate",
    },
    changed={
        "C6": "the scorer returns a negative number above full; the profile clamps it, as it does for all scorers",
        "C25": "the old formula only with `scoreNormalization: minmax`; the ratio is the default",
        "C44": "the sum of 1.01 is clamped to 1, as scores are at most 1",
        "F16": "concurrency-detector too keeps all where all are full: refusing is the business of admission, not of a filter",
    },
)
