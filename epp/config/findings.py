"""How findings are shown: one line each for people, one object each for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence

from epp.errors import Finding, Severity

MOST_SHOWN = 20
"""Errors shown as text; whoever has more repairs the first ones first."""


def text_line(finding: Finding) -> str:
    """``epp.yaml:14:20: error CFG061: schedulingProfiles[0]...: what and why; what to do``."""
    where = finding.file
    if finding.line:
        where += f":{finding.line}:{finding.column}"
    head = f"{where}: " if where else ""
    path = f"{finding.path}: " if finding.path else ""
    fix = f"; {finding.fix}" if finding.fix else ""
    return f"{head}{finding.severity} {finding.code}: {path}{finding.message}{fix}"


def text_report(findings: Sequence[Finding]) -> str:
    """All findings as lines; of the errors the first twenty and the number of the rest."""
    lines = []
    errors = 0
    for finding in findings:
        errors += finding.severity is Severity.ERROR
        if finding.severity is not Severity.ERROR or errors <= MOST_SHOWN:
            lines.append(text_line(finding))
    if errors > MOST_SHOWN:
        lines.append(f"and {errors - MOST_SHOWN} more errors")
    return "\n".join(lines)


def json_report(findings: Iterable[Finding]) -> str:
    """All findings as a JSON list of ``{file, line, column, path, value, message, fix, severity, code}``."""
    return json.dumps(json_records(findings), ensure_ascii=False, indent=2, default=str)


def json_records(findings: Iterable[Finding]) -> list[dict[str, object]]:
    """The same as objects."""
    return [_record(finding) for finding in findings]


def _record(finding: Finding) -> dict[str, object]:
    value = finding.value
    if isinstance(value, float) and not math.isfinite(value):
        value = str(value)
    return {
        "file": finding.file,
        "line": finding.line,
        "column": finding.column,
        "path": finding.path,
        "value": value,
        "message": finding.message,
        "fix": finding.fix,
        "severity": finding.severity.value,
        "code": finding.code,
    }
