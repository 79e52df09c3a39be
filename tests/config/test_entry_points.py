"""Plugin types of installed packages."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from epp.framework.registry import ENTRY_POINT_GROUP, Registry, load_entry_points
from epp.process.plugin_types import build_registry
from tests.config.doubles import plugin_type

ONE = plugin_type("their-scorer")
SEVERAL = (plugin_type("their-filter"), plugin_type("their-picker"))
CLASH = plugin_type("queue-scorer")
NO_TYPE = 5


def entry(name: str, value: str) -> EntryPoint:
    """An entry point of our group."""
    return EntryPoint(name, value, ENTRY_POINT_GROUP)


def test_a_type_or_several_are_registered() -> None:
    registry = Registry()
    assert load_entry_points(registry, [entry("a", f"{__name__}:ONE"), entry("b", f"{__name__}:SEVERAL")]) == []
    assert registry.names() == ["their-filter", "their-picker", "their-scorer"]


BROKEN = {
    "missing-module": ("no_such_module_anywhere", "ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
    "missing-name": (f"{__name__}:NOTHING", "AttributeError: module"),
    "no-type": (f"{__name__}:NO_TYPE", "TypeError: it must be a PluginType or an iterable of them, not 5"),
    "name-that-is-taken": (
        f"{__name__}:CLASH",
        "ValueError: plugin type 'queue-scorer' of an unknown package is already registered by endpoint-picker",
    ),
}


@pytest.mark.parametrize(("value", "cause"), BROKEN.values(), ids=BROKEN)
def test_one_that_fails_is_named_and_the_rest_loads(value: str, cause: str) -> None:
    registry = Registry([plugin_type("queue-scorer")])
    found = load_entry_points(registry, [entry("bad", value), entry("good", f"{__name__}:ONE")])
    assert [(f.code, str(f.severity)) for f in found] == [("WRN021", "warning")]
    assert f"entry point 'bad' ({value}) of an unknown package could not be loaded: {cause}" in found[0].message
    assert registry.get("their-scorer") is not None


def test_an_installed_package_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "acme_epp.py").write_text(
        "from epp.framework.interfaces import Role\n"
        "from epp.framework.registry import PluginType\n"
        "PLUGIN = PluginType('acme-scorer', frozenset({Role.SCORER}), 'Acme.')\n"
    )
    info = tmp_path / "acme_epp-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-epp\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[{ENTRY_POINT_GROUP}]\nacme = acme_epp:PLUGIN\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "acme_epp", raising=False)
    registry, findings = build_registry()
    found = registry.get("acme-scorer")
    assert findings == []
    assert found is not None
    assert (found.package, found.version) == ("acme-epp", "1.2")
