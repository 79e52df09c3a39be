"""What cases of the specification wait for."""

from __future__ import annotations

from epp.config.load import load_config
from epp.config.loaded import ConfigSource
from epp.errors import UsageError
from epp.process.options import Options
from epp.process.startup import check_discovery
from tests.config.corpus import registry
from tests.spec.document import Capability, plugin_type


def _pools_are_found() -> bool:
    try:
        check_discovery(Options(pool_name="pool"), load_config(ConfigSource.builtin(), registry()))
    except UsageError:
        return False
    return True


KUBERNETES = Capability("Kubernetes", _pools_are_found)
PRECISE_PREFIX_CACHE = plugin_type("precise-prefix-cache-scorer")
FLOW_CONTROL = plugin_type("fcfs-ordering-policy")
EVICTION = plugin_type("priority-then-time-eviction-order-policy")
