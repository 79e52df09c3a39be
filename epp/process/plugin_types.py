"""Every plugin type of this installation: the in-tree ones and those of installed packages.

The only module under ``epp`` that imports ``plugins``.
"""

from __future__ import annotations

import plugins
from epp.errors import Finding
from epp.framework.registry import Registry, load_entry_points


def build_registry() -> tuple[Registry, list[Finding]]:
    """All plugin types, and one warning for each package whose entry point could not be loaded."""
    registry = Registry()
    plugins.register_all(registry)
    return registry, load_entry_points(registry)
