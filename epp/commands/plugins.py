"""``epp plugins [TYPE]``: what plugin types exist, and what one does."""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Iterator, Sequence

from epp.framework.registry import PluginType
from epp.plugin_types import build_registry


def main(argv: Sequence[str]) -> int:
    """List all plugin types, or describe one.

    Returns:
        0; 2 if there is no such type.
    """
    if argv and argv[0] in ("-h", "--help"):
        print("usage: epp plugins [TYPE]\n\nList all plugin types, or describe one with its parameters.")
        return 0
    registry, findings = build_registry()
    for finding in findings:
        print(f"epp: {finding.message}", file=sys.stderr)
    if not argv:
        for plugin_type in registry:
            roles = ", ".join(sorted(plugin_type.roles))
            state = "" if plugin_type.is_built else "  (not built yet)"
            print(f"{plugin_type.type:<38} {roles:<58} {plugin_type.package}{state}")
        return 0
    found = registry.get(argv[0])
    if found is None:
        near = difflib.get_close_matches(argv[0], registry.names(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "; `epp plugins` lists all"
        print(f"epp: no plugin type {argv[0]!r}{hint}", file=sys.stderr)
        return 2
    print("\n".join(_describe(found)))
    return 0


def _describe(plugin_type: PluginType) -> Iterator[str]:
    yield plugin_type.type
    yield f"  {plugin_type.summary}"
    yield ""
    if len(plugin_type.names) > 1:
        yield f"  also named:  {', '.join(plugin_type.names[1:])}"
    yield f"  roles:       {', '.join(sorted(plugin_type.roles))}"
    yield f"  package:     {plugin_type.package} {plugin_type.version}".rstrip()
    if not plugin_type.is_built:
        yield f"  state:       not built yet{f' (waits for {plugin_type.wait})' if plugin_type.wait else ''}"
    for title, keys in (("produces", plugin_type.produces), ("consumes", [c.key for c in plugin_type.consumes])):
        if keys:
            yield f"  {title}:    {', '.join(str(key) for key in keys)}"
    fields = plugin_type.params.model_fields
    yield ""
    yield "  parameters:" if fields else "  parameters: none"
    for name, info in fields.items():
        default = "required" if info.is_required() else f"default {info.get_default(call_default_factory=True)!r}"
        yield f"    {info.alias or name} ({_type_name(info.annotation)}, {default})"
        if info.description:
            yield f"        {info.description}"


def _type_name(annotation: object) -> str:
    return annotation.__name__ if inspect.isclass(annotation) else str(annotation).replace("typing.", "")
