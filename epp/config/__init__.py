"""The configuration document: ``load_config`` reads, completes and checks it; ``instantiate`` creates its plugins."""

from epp.config.instantiate import MakeContext, instantiate
from epp.config.load import load_config
from epp.config.loaded import ConfigSource, Instances, LoadedConfig, LoadedPlugin, LoadedProfile, LoadedSource, LoadFlags

__all__ = [
    "ConfigSource",
    "Instances",
    "LoadFlags",
    "LoadedConfig",
    "LoadedPlugin",
    "LoadedProfile",
    "LoadedSource",
    "MakeContext",
    "instantiate",
    "load_config",
]
