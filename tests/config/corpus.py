"""Sample configurations as files; each says at its end which findings it has.

After a change of a message: ``python -m tests.config.corpus`` writes what is found into the files; read the diff.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import plugins
from epp.config.findings import text_line
from epp.config.instantiate import instantiate
from epp.config.load import load_config
from epp.config.loaded import ConfigSource, Instances, LoadFlags
from epp.errors import ConfigError, Finding
from epp.framework.registry import Registry

FOLDER = Path(__file__).parent
GOOD = sorted((FOLDER / "good").glob("*.yaml"))
BAD = sorted((FOLDER / "bad").glob("*.yaml"))
_MARK = "# finds:\n"
_DEPENDS_ON_PROGRESS = {"INF001", "INF003"}
"""Codes for what is not built yet: they vanish by and by, and have tests of their own."""


@cache
def registry() -> Registry:
    """All in-tree plugin types."""
    found = Registry()
    plugins.register_all(found)
    return found


def load(source: ConfigSource | str, flags: LoadFlags | None = None, types: Registry | None = None) -> Instances:
    """Load and create, as ``epp check`` does.

    Raises:
        ConfigError: it is invalid.
    """
    source = source if isinstance(source, ConfigSource) else ConfigSource.from_text(source, "epp.yaml")
    return instantiate(load_config(source, registry() if types is None else types, flags))


def findings(source: ConfigSource | str, flags: LoadFlags | None = None, types: Registry | None = None) -> Sequence[Finding]:
    """All findings of a document, whether it is valid or not."""
    try:
        instances = load(source, flags, types)
    except ConfigError as error:
        return error.findings
    return (*instances.config.findings, *instances.findings)


def lines(source: ConfigSource | str, flags: LoadFlags | None = None, types: Registry | None = None) -> list[str]:
    """All findings as text, without those about types that are not built."""
    return [text_line(f) for f in findings(source, flags, types) if f.code not in _DEPENDS_ON_PROGRESS]


def split(path: Path) -> tuple[str, list[str]]:
    """A sample's document, and the findings it says it has."""
    document, _, found = path.read_text(encoding="utf-8").partition(_MARK)
    return document, [line.removeprefix("# ") for line in found.splitlines()]


def found_in(path: Path) -> list[str]:
    """The findings of a sample's document."""
    return lines(ConfigSource.from_text(split(path)[0], path.name))


def _record() -> None:
    for path in GOOD + BAD:
        document, _ = split(path)
        found = found_in(path)
        text = document + (_MARK + "".join(f"# {line}\n" for line in found) if found else "")
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    _record()
