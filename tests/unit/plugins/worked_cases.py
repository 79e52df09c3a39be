"""The worked cases of the plugin specification: the module that tests each, and those that no test can show, with the reason.

A case is found in its module by its number: in the id of a parameter, in the name of a test, or beside an assertion.
"""

from __future__ import annotations

from collections.abc import Iterator


def _cases(letter: str, numbers: range) -> Iterator[str]:
    return (f"{letter}{number}" for number in numbers)


COUNTS = {"S": 23, "L": 30, "C": 49, "P": 10, "F": 17, "H": 25}
ALL = frozenset(case for letter, count in COUNTS.items() for case in _cases(letter, range(1, count + 1)))

_PROFILE = "unit/scheduling/test_profile.py"
_SCHEDULER = "unit/scheduling/test_scheduler.py"
_PROFILES = "unit/plugins/test_profiles.py"
_PD = "unit/plugins/test_pd_profile_handler.py"
_WEIGHTS = "unit/plugins/latency/test_weights.py"
_PREDICTED = "unit/plugins/latency/test_scorer.py"
_LATENCY = "unit/plugins/test_latency_plugins.py"
_AROUND = "unit/plugins/test_request_plugins.py"

_PLACES = [
    # the scheduling cycle
    (_PROFILE, [*_cases("S", range(1, 8)), "S10", "S11", "S21", "S22"]),
    (_PROFILES, ["S12", "S13", "S23"]),
    (_SCHEDULER, ["S14", *_cases("S", range(16, 21))]),
    ("unit/decision/test_director.py", ["S15"]),
    # loading
    ("config/test_loading.py", _cases("L", range(1, 31))),
    # scorers
    ("unit/plugins/test_load_scorers.py", _cases("C", range(1, 10))),
    ("unit/plugins/test_active_request.py", _cases("C", range(10, 16))),
    ("unit/plugins/test_no_hit_lru.py", _cases("C", range(16, 23))),
    ("unit/plugins/test_prefix_scorers.py", _cases("C", range(23, 26))),
    ("unit/plugins/test_lora_affinity.py", ["C26", "C27"]),
    ("unit/plugins/test_session_affinity.py", _cases("C", range(28, 32))),
    ("unit/plugins/test_context_length_aware.py", _cases("C", range(32, 37))),
    (_WEIGHTS, ["C37", "C38", "C39"]),
    (_PREDICTED, ["C40", "C41", "C42"]),
    ("unit/plugins/test_inflight_load.py", ["C43"]),
    (_LATENCY, ["C44", "C45", "C46"]),
    ("unit/plugins/test_attribute_plugins.py", ["C47", "C48"]),
    ("unit/plugins/test_topology.py", ["C49"]),
    # pickers
    ("unit/plugins/test_pickers.py", _cases("P", range(1, 11))),
    # filters
    ("unit/plugins/test_label_filters.py", _cases("F", range(1, 12))),
    ("unit/plugins/test_context_length_aware.py", ["F12", "F13"]),
    (_LATENCY, ["F14"]),
    ("unit/plugins/test_attribute_plugins.py", ["F15"]),
    ("unit/plugins/test_detectors.py", ["F16"]),
    ("unit/plugins/test_topology.py", ["F17"]),
    # handlers, deciders, headers
    (_PD, _cases("H", range(1, 7))),
    ("unit/plugins/test_deciders.py", _cases("H", range(7, 12))),
    ("unit/plugins/test_disagg_profile_handler.py", ["H12", "H13", "H14"]),
    (_AROUND, [*_cases("H", range(15, 19)), "H23"]),
    ("unit/plugins/test_response_plugins.py", ["H19", "H20"]),
    ("unit/plugins/test_other_profile_handlers.py", ["H21"]),
    ("unit/plugins/latency/test_admitter.py", ["H22"]),
]

PLACES: dict[str, str] = {case: place for place, cases in _PLACES for case in cases}
"""Case → the test module that has it."""

PENDING: dict[str, str] = {
    "H24": "priority-holdback-policy",
    "H25": "soft-reflective-ceiling-policy",
}
"""Case → the plugin type that has to be built first."""

VOID: dict[str, str] = {
    "S8": "a scorer returns a list as long as the candidates; a shorter one counts as 0 for all",
    "S9": "a scorer returns scores by position, so there is no score of somebody who is no candidate",
}
"""Case → why the design leaves nothing to test."""

CHANGED: dict[str, str] = {
    "C6": "the scorer returns a negative number above full; the profile clamps it, as it does for all scorers",
    "C25": "the old formula only with `scoreNormalization: minmax`; the ratio is the default",
    "C44": "the sum of 1.01 is clamped to 1, as scores are at most 1",
    "F16": "concurrency-detector too keeps all where all are full: refusing is the business of admission, not of a filter",
}
"""Case → in what our answer differs from the table, and why."""
