"""Loading a configuration: read, decode, complete, check."""

from __future__ import annotations

from epp.config.loaded import ConfigSource, LoadedConfig, LoadFlags
from epp.framework.registry import Registry


def load_config(source: ConfigSource, registry: Registry, flags: LoadFlags | None = None) -> LoadedConfig:
    """Load a document; nothing is created and nothing is contacted.

    Args:
        source: where the document is.
        registry: the plugin types that exist.
        flags: process flags that matter here.

    Raises:
        ConfigError: with every finding of the document, if one of them is an error.
    """
    raise NotImplementedError
