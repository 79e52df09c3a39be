"""The endpoint file: text → endpoints, and what is wrong with it.

Source: llm-d-router: pkg/epp/framework/plugins/datalayer/discovery/file/plugin.go, docs/discovery.md.
"""

from __future__ import annotations

import difflib
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field

from epp.errors import Finding, Severity
from epp.framework.documents import Document, DocumentError, Path, path_text, read_documents
from epp.framework.types import Endpoint, EndpointId

MAX_FILE_BYTES = 1024 * 1024
DEFAULT_NAMESPACE = "default"

_FIELDS = ("name", "namespace", "address", "port", "labels")


@dataclass(slots=True)
class Entry:
    """One entry of the list."""

    id: EndpointId | None
    """None = its name cannot be read."""
    endpoint: Endpoint | None
    """None = it is invalid."""


@dataclass(slots=True)
class EndpointFile:
    """What a file says."""

    entries: list[Entry] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    """Errors of entries; warnings for keys that are not known."""
    is_readable: bool = True
    """False: there is no list of endpoints, so nothing of the file may be used."""
    is_blank: bool = False
    """There is no list because nothing is written there, as in a file that is being rewritten."""

    @property
    def errors(self) -> list[Finding]:
        """The findings that are more than a warning."""
        return [finding for finding in self.findings if finding.severity is Severity.ERROR]


def read_endpoint_file(path: str) -> EndpointFile:
    """Read a file; never raises for what is in it or that it is not there."""
    try:
        with open(path, "rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            return _unreadable(path, f"the file is larger than {MAX_FILE_BYTES} bytes", "split the pool")
        documents = read_documents(data.decode())
    except DocumentError as error:
        return _unreadable(path, str(error), "correct the syntax", error.line, error.column)
    except UnicodeDecodeError as error:
        return _unreadable(path, f"the file is not UTF-8: {error}", "write it as UTF-8")
    except OSError as error:
        return _unreadable(path, f"the file cannot be read: {error.strerror or error}", "check the path and the permissions")
    if len(documents) > 1:
        return _unreadable(path, "the file has more than one document", "put all endpoints into one list")
    return _Reader(path, documents[0] if documents else Document(None)).read()


def _unreadable(path: str, message: str, fix: str, line: int = 0, column: int = 0) -> EndpointFile:
    finding = Finding("EPF001", "", message, fix, line=line, column=column, file=path)
    return EndpointFile(findings=[finding], is_readable=False)


class _Reader:
    def __init__(self, path: str, document: Document) -> None:
        self._path = path
        self._document = document
        self._file = EndpointFile()

    def read(self) -> EndpointFile:
        value = self._document.value
        if value is None or (isinstance(value, dict) and value.get("endpoints") is None):
            self._check_keys((), value if isinstance(value, dict) else {}, ("endpoints",))
            self._file.is_readable, self._file.is_blank = False, True
            self._error("EPF002", (), "there is no list of endpoints", "write endpoints: [], if none are meant")
            return self._file
        endpoints = value["endpoints"] if isinstance(value, dict) else None
        if not isinstance(value, dict) or not isinstance(endpoints, list):
            self._file.is_readable = False
            self._error(
                "EPF001",
                ("endpoints",),
                "the file must be a mapping with a list endpoints",
                "write endpoints: and below it one entry for each model server",
            )
            return self._file
        self._check_keys((), value, ("endpoints",))
        for index, entry in enumerate(endpoints):
            self._file.entries.append(self._entry(("endpoints", index), entry))
        return self._file

    def _entry(self, path: Path, entry: object) -> Entry:
        if not isinstance(entry, dict):
            self._error("EPF003", path, "an endpoint must be a mapping", f"write {', '.join(_FIELDS)}")
            return Entry(None, None)
        self._check_keys(path, entry, _FIELDS)
        before = len(self._file.errors)
        name = self._text(path, entry, "name", None)
        namespace = self._text(path, entry, "namespace", DEFAULT_NAMESPACE)
        address = self._address((*path, "address"), entry.get("address"))
        port = self._port((*path, "port"), entry.get("port"))
        labels = self._labels((*path, "labels"), entry.get("labels"))
        endpoint_id = EndpointId(f"{namespace}/{name}") if name and namespace else None
        if len(self._file.errors) > before or not name or not namespace:
            return Entry(endpoint_id, None)
        return Entry(endpoint_id, Endpoint.of(name, address, port, labels, namespace=namespace))

    def _text(self, path: Path, entry: dict[str, object], key: str, default: str | None) -> str:
        value = entry.get(key)
        if value is None and default is not None:
            return default
        if isinstance(value, str) and value:
            return value
        what = f"{key} is missing" if value is None else f"{key} must be a string that is not empty"
        self._error("EPF003", (*path, key), what, f"give the endpoint a {key}, in quotes if it is a number", value)
        return ""

    def _address(self, path: Path, value: object) -> str:
        try:
            address = ipaddress.ip_address(value) if isinstance(value, str) else None
        except ValueError:
            address = None
        if address is None or "%" in str(address):
            self._error("EPF003", path, "address must be an IP address", "write it without port and brackets", value)
            return ""
        return str(address)

    def _port(self, path: Path, value: object) -> int:
        port = int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10 else value
        if isinstance(port, int) and not isinstance(port, bool) and 1 <= port <= 65535:
            return port
        self._error("EPF003", path, "port must be an integer from 1 to 65535", "write the port of the model server", value)
        return 0

    def _labels(self, path: Path, value: object) -> dict[str, str]:
        if value is None:
            return {}
        if not isinstance(value, dict) or any(isinstance(entry, (dict, list)) for entry in value.values()):
            self._error("EPF003", path, "labels must be a mapping of strings", "write key: value for each label")
            return {}
        # As written: 1.10 is the label value "1.10".
        return {key: "" if entry is None else self._document.texts[(*path, key)] for key, entry in value.items()}

    def _check_keys(self, path: Path, mapping: Iterable[str], known: tuple[str, ...]) -> None:
        for key in mapping:
            if key in known:
                continue
            near = difflib.get_close_matches(key, known, 1)
            fix = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            self._error("EPF004", (*path, key), f"unknown key {key!r}", fix, severity=Severity.WARNING)

    def _error(
        self, code: str, path: Path, message: str, fix: str, value: object = None, severity: Severity = Severity.ERROR
    ) -> None:
        line, column = self._document.place(path)
        self._file.findings.append(Finding(code, path_text(path), message, fix, value, line, column, severity, file=self._path))
