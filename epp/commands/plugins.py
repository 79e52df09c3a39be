"""``epp plugins [TYPE]``: what plugin types exist, and what one does; ``--docs`` writes their pages."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from epp.config.wording import nearest
from epp.framework.registry import Registry
from epp.plugin_pages.page import page
from epp.plugin_pages.render import INDEX, MARK, index, markdown, text
from epp.process.plugin_types import build_registry

OK, USAGE = 0, 2
OWN_PACKAGE = "endpoint-picker"


def main(argv: Sequence[str]) -> int:
    """List all plugin types, describe one, or write the pages of a package's types.

    Returns:
        0; 2 if there is no such type, or for a command line that cannot be used.
    """
    try:
        options = _parser().parse_args(list(argv))
    except SystemExit as stop:  # argparse has printed help or what is wrong
        return OK if not stop.code else USAGE
    registry, findings = build_registry()
    for finding in findings:
        print(f"epp: {finding.message}", file=sys.stderr)
    if options.docs:
        return _write(Path(options.docs), registry, options.package)
    if options.type:
        return _describe(options.type, registry)
    for plugin_type in registry:
        roles = ", ".join(sorted(plugin_type.roles))
        state = "" if plugin_type.is_built else "  (not built yet)"
        package = f"{plugin_type.package} {plugin_type.version}".rstrip()
        print(f"{plugin_type.type:<42} {roles:<58} {package}{state}")
    return OK


def _describe(name: str, registry: Registry) -> int:
    found = registry.get(name)
    if found is None:
        close = nearest(name, registry.names())
        hint = f"; did you mean {close!r}?" if close else "; `epp plugins` lists all"
        print(f"epp: no plugin type {name!r}{hint}", file=sys.stderr)
        return USAGE
    print(text(page(found, registry)))
    return OK


def pages(registry: Registry, package: str = OWN_PACKAGE) -> dict[str, str]:
    """File name → content, for all types of a package and their index."""
    types = [plugin_type for plugin_type in registry if plugin_type.package == package]
    return {f"{t.type}.md": markdown(page(t, registry)) for t in types} | {INDEX: index(types)}


def _write(folder: Path, registry: Registry, package: str) -> int:
    wanted = pages(registry, package)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in wanted.items():
        (folder / name).write_text(content, encoding="utf-8")
    for path in folder.glob("*.md"):
        if path.name not in wanted and path.read_text(encoding="utf-8").startswith(MARK):
            path.unlink()
    print(f"{folder}: {len(wanted)} pages")
    return OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="epp plugins", description="List all plugin types, or describe one with its parameters.", allow_abbrev=False
    )
    parser.add_argument("type", metavar="TYPE", nargs="?", help="a type or alias to describe")
    parser.add_argument("--docs", metavar="DIR", help="write a Markdown page for each type, and an index")
    parser.add_argument(
        "--package", default=OWN_PACKAGE, metavar="NAME", help=f"whose types get pages (default: {OWN_PACKAGE})"
    )
    return parser
