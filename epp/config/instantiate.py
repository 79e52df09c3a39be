"""Creating the plugins of a loaded configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from epp.config.loaded import Instances, LoadedConfig, LoadedPlugin
from epp.framework.handle import PluginContext

MakeContext = Callable[[LoadedPlugin, Mapping[str, object]], PluginContext]
"""(plugin, the instances it may refer to) → what its factory receives."""


def instantiate(config: LoadedConfig, make_context: MakeContext | None = None) -> Instances:
    """Create every plugin whose type is built, each after those it refers to.

    Args:
        config: from ``load_config``.
        make_context: gives clocks, randomness and runtime; default: a context without a runtime.

    Raises:
        ConfigError: factories refused their values; with one finding for each.
    """
    raise NotImplementedError
