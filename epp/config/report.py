"""Collecting findings while a document is read."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable

from epp.config.wording import MASK, is_secret_path
from epp.config.yaml_nodes import Place
from epp.errors import ConfigError, Edit, EppError, Finding, Severity

NOWHERE = Place(0, 0)
_FIRST_OF_MEANING = "CFG040"
"""Lower codes are about how something is written, this and higher ones about what it means."""


class UnreadableError(EppError):
    """The document cannot be read any further; the report holds why."""


class Report:
    """All findings of one document.

    After an error in how a value is written, further errors about the same value are only consequences and are not kept.
    """

    def __init__(self, file: str, *, strict: bool = False) -> None:
        self._file = file
        self._strict = strict
        self._findings: list[Finding] = []
        self._wrong: dict[str, set[str]] = {}

    def error(self, code: str, path: str, message: str, fix: str = "", *, value: object = None, at: Place = NOWHERE) -> None:
        """Something that prevents the start."""
        before = self._wrong.setdefault(path, set())
        if path and (code in before or min(before, default=_FIRST_OF_MEANING) < _FIRST_OF_MEANING):
            return
        before.add(code)
        self._add(code, path, message, fix, value, at, Severity.ERROR)

    def warn(
        self,
        code: str,
        path: str,
        message: str,
        fix: str = "",
        *,
        value: object = None,
        at: Place = NOWHERE,
        edit: tuple[Edit, str] | None = None,
    ) -> None:
        """Something that works, but hardly as meant; an error if the process is strict.

        Args:
            edit: how a program may repair it, and the text that it writes.
        """
        severity = Severity.ERROR if self._strict else Severity.WARNING
        self._add(code, path, message, fix, value, at, severity, edit)

    def inform(self, code: str, path: str, message: str, fix: str = "", *, value: object = None, at: Place = NOWHERE) -> None:
        """Something worth knowing."""
        self._add(code, path, message, fix, value, at, Severity.INFO)

    def stop(
        self, code: str, path: str, message: str, fix: str = "", *, value: object = None, at: Place = NOWHERE
    ) -> UnreadableError:
        """An error after which nothing else can be said; to be raised."""
        self.error(code, path, message, fix, value=value, at=at)
        return UnreadableError()

    def _add(
        self,
        code: str,
        path: str,
        message: str,
        fix: str,
        value: object,
        at: Place,
        severity: Severity,
        edit: tuple[Edit, str] | None = None,
    ) -> None:
        if value not in (None, "", [], {}) and is_secret_path(path):
            value = MASK
        how, new_text = edit if edit is not None else (None, "")
        finding = Finding(code, path, message, fix, value, at.line, at.column, severity, self._file, how, new_text)
        if finding not in self._findings:
            self._findings.append(finding)

    def extend(self, findings: Iterable[Finding]) -> None:
        """Take findings from elsewhere."""
        for finding in findings:
            self._findings.append(dataclasses.replace(finding, file=finding.file or self._file))

    def has_error(self, path: str) -> bool:
        """Whether an error was reported for exactly this path."""
        return path in self._wrong

    def is_incomplete(self, path: str) -> bool:
        """Whether the list at ``path``, or one of its entries, could not be read."""
        return any(wrong == path or re.fullmatch(re.escape(path) + r"\[\d+\]", wrong) for wrong in self._wrong)

    @property
    def has_errors(self) -> bool:
        """Whether the document can be used."""
        return any(finding.severity is Severity.ERROR for finding in self._findings)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings in document order; those without a place come last."""
        return tuple(sorted(self._findings, key=lambda f: (f.line == 0, f.line, f.column)))

    def raise_if_wrong(self) -> None:
        """Raise what was found if one finding is an error.

        Raises:
            ConfigError: with all findings, also warnings and notes.
        """
        if self.has_errors:
            raise ConfigError(self.findings)
