"""The list of what is not tested stays honest."""

from __future__ import annotations

from epp.framework.registry import Registry
from tests.config.corpus import registry
from tests.config.pending import PENDING


def test_types_that_cases_wait_for_are_not_built() -> None:
    types: Registry = registry()
    for waits_for in PENDING.values():
        plugin_type = types.get(waits_for)
        assert plugin_type is None or not plugin_type.is_built, f"{waits_for} is built: write its test"
