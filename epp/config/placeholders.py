"""Text that somebody was meant to replace."""

from __future__ import annotations

import re

from epp.config.report import Report
from epp.config.wording import show, step
from epp.config.yaml_nodes import ListNode, MapNode, Node

_PLACEHOLDER = re.compile(r"<[A-Za-z][\w .-]*>|\{\{.*?\}\}|\$\{\w+\}")
_EXPANDED = ("mongodb://", "mongodb+srv://")
"""Strings that begin like this may hold ``${VARIABLE}``."""


def find_placeholders(node: Node, report: Report, path: str = "") -> None:
    """Warn about ``<placeholder>``, ``{{ template }}`` and ``${VARIABLE}`` in strings."""
    if isinstance(node, MapNode):
        for key, entry in node.entries.items():
            find_placeholders(entry.node, report, step(path, key))
        return
    if isinstance(node, ListNode):
        for index, item in enumerate(node.items):
            find_placeholders(item, report, step(path, index))
        return
    value = node.value
    if not isinstance(value, str) or value.startswith(_EXPANDED):
        return
    match = _PLACEHOLDER.search(value)
    if match is not None:
        message = f"{show(match[0])} looks like a placeholder"
        report.warn("WRN019", path, message, "write the real value; nothing is replaced here", value=value, at=node.place)
