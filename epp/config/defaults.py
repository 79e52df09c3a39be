"""What is added to a document that does not say it. The only place under ``epp`` that names plugin types.

Upstream picks at random among several candidates in some of these cases; here declaration order decides.
Source: llm-d-router: pkg/epp/config/loader/defaults.go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from epp.framework.interfaces import Role

if TYPE_CHECKING:
    from epp.config.draft import Draft, DraftPlugin

BUILTIN_DOCUMENT = b"""\
apiVersion: inference.networking.x-k8s.io/v1alpha1
kind: EndpointPickerConfig
plugins:
  - type: queue-scorer
  - type: kv-cache-utilization-scorer
  - type: prefix-cache-scorer
schedulingProfiles:
  - name: default
    plugins:
      - {pluginRef: queue-scorer, weight: 2}
      - {pluginRef: kv-cache-utilization-scorer, weight: 2}
      - {pluginRef: prefix-cache-scorer, weight: 3}
"""
"""Used when no document is given."""

DEFAULT_PROFILE = "default"
SINGLE_PROFILE_HANDLER = "single-profile-handler"
MAX_SCORE_PICKER = "max-score-picker"
ROLE_FILTERS = ("prefill-filter", "decode-filter")
"""Together in one profile they leave no endpoint."""
OLDER_TYPES = {"pd-profile-handler": "disagg-profile-handler"}
"""Type → the more general one that replaced it."""

METRICS_SOURCE = "metrics-data-source"
METRICS_EXTRACTOR = "core-metrics-extractor"
ENDPOINT_SOURCE = "endpoint-notification-source"
OBJECT_SOURCE = "k8s-notification-source"
PARSERS = ("openai-parser", "anthropic-parser", "vllmhttp-parser", "passthrough-parser")

ORDERING_POLICY = "fcfs-ordering-policy"
FAIRNESS_POLICY = "global-strict-fairness-policy"
USAGE_LIMIT_POLICY = "static-usage-limit-policy"
POLICIES = (ORDERING_POLICY, FAIRNESS_POLICY, USAGE_LIMIT_POLICY)
"""Exist under these names in every configuration."""
EVICTION_FILTER = "sheddable-eviction-filter"
EVICTION_ORDER = "priority-then-time-eviction-order-policy"
DETECTOR = "utilization-detector"
DETECTORS = {"": DETECTOR, "utilization": DETECTOR, "running-requests": "running-requests-detector"}
"""``type`` of an inline detector → plugin type."""


def add_handler(draft: Draft) -> None:
    """One profile needs no handler of its own."""
    if not draft.handler and len(draft.profiles) == 1 and draft.knows_all_plugins:
        handler = draft.add(SINGLE_PROFILE_HANDLER)
        draft.handler = handler.name if handler is not None else ""


def choose_picker(draft: Draft) -> DraftPlugin | None:
    """For profiles without a picker: a declared max-score-picker, else the first declared picker, else a new one."""
    pickers = draft.with_role(Role.PICKER)
    preferred = [picker for picker in pickers if picker.is_type(MAX_SCORE_PICKER)]
    return next(iter(preferred + pickers), None) or draft.add(MAX_SCORE_PICKER)


def add_policies(draft: Draft) -> None:
    """The default policies exist even while flow control is off, so that they can be referred to."""
    for name in POLICIES:
        draft.add(name)


def add_eviction_policies(draft: Draft) -> None:
    """Where running requests may be ended: a declared filter and order, else the usual ones."""
    for role, name in ((Role.EVICTION_FILTER, EVICTION_FILTER), (Role.EVICTION_ORDER, EVICTION_ORDER)):
        if not draft.with_role(role):
            draft.add(name)


def metrics_source(draft: Draft) -> tuple[DraftPlugin | None, DraftPlugin | None]:
    """The source and extractor that are used when none is configured; a declared one, even unreferenced, wins."""
    source = next(iter(draft.of_type(METRICS_SOURCE)), None) or draft.add(METRICS_SOURCE)
    extractor = next(iter(draft.of_type(METRICS_EXTRACTOR)), None) or draft.add(METRICS_EXTRACTOR)
    return source, extractor
