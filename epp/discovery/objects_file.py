"""ObjectsFiles: objectives and rewrites from YAML files (``--objects FILE``), followed while the process runs."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from epp.datalayer.objects import InferenceObject, ObjectKey, ObjectStore
from epp.discovery.manifests import ManifestError, parse_manifest
from epp.errors import ConfigError, Finding
from epp.framework import log
from epp.framework.documents import Document, DocumentError, Path, path_text, read_documents
from epp.framework.file_watch import FileWatch

_logger = log.get(__name__)

MAX_FILE_BYTES = 8 * 1024 * 1024

_Identity = tuple[type[InferenceObject], ObjectKey]


@dataclass(slots=True)
class _File:
    objects: dict[_Identity, InferenceObject] = field(default_factory=dict)
    invalid: set[_Identity] = field(default_factory=set)
    """Objects that are there and cannot be used, as far as they can be recognised."""
    findings: list[Finding] = field(default_factory=list)
    is_readable: bool = True


class ObjectsFiles:
    """Keeps an ObjectStore equal to what some files say.

    At the start every mistake ends the process. Later a file that cannot be read changes nothing, and an object that became
    invalid keeps its previous version; each is named in the log with its place.

    Args:
        paths: the files.
        store: receives the objects.
    """

    def __init__(self, paths: Sequence[str], store: ObjectStore) -> None:
        self._paths = tuple(paths)
        self._store = store
        self._objects: dict[str, dict[_Identity, InferenceObject]] = {}
        self._watch: FileWatch | None = None

    def load(self) -> None:
        """Read all files for the first time.

        Raises:
            ConfigError: with all mistakes of all files.
        """
        self._watch = FileWatch(self._paths)
        files = {path: _read(path, self._store.pool.namespace) for path in self._paths}
        findings = [finding for file in files.values() for finding in file.findings]
        if findings:
            raise ConfigError(findings)
        self._publish({path: file.objects for path, file in files.items()})

    async def run(self, stop: asyncio.Event) -> None:
        """Follow the files until ``stop`` is set; ``load`` comes first."""
        assert self._watch is not None
        await self._watch.run(self.reload, stop)

    def reload(self) -> None:
        """Read all files again (also SIGHUP)."""
        objects = dict(self._objects)
        for path in self._paths:
            file = _read(path, self._store.pool.namespace)
            for finding in file.findings:
                _log(finding, is_readable=file.is_readable)
            if file.is_readable:
                known = self._objects.get(path, {})
                kept = {identity: known[identity] for identity in file.invalid if identity in known}
                objects[path] = kept | file.objects
        self._publish(objects)

    def _publish(self, objects: dict[str, dict[_Identity, InferenceObject]]) -> None:
        if objects == self._objects:
            return
        self._objects = objects
        merged = [obj for of_file in objects.values() for obj in of_file.values()]
        for obj in merged:
            if not self._store.pool.owns(obj.key, obj.pool):
                details = {"object": obj.key.name, "namespace": obj.key.namespace, "pool": self._store.pool.name}
                _logger.warning("object belongs to another pool, it is not used", details=details)
        self._store.replace_all(merged)
        _logger.info("objects read from files", files=list(self._paths), count=len(merged))


def _read(path: str, namespace: str) -> _File:
    try:
        with open(path, "rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            return _unreadable(path, f"the file is larger than {MAX_FILE_BYTES} bytes", "split it")
        documents = read_documents(data.decode())
    except DocumentError as error:
        return _unreadable(path, str(error), "correct the syntax", error.line, error.column)
    except UnicodeDecodeError as error:
        return _unreadable(path, f"the file is not UTF-8: {error}", "write it as UTF-8")
    except OSError as error:
        return _unreadable(path, f"the file cannot be read: {error.strerror or error}", "check the path and the permissions")
    file = _File()
    for document in documents:
        for where, manifest in _manifests(document):
            _add(file, path, document, where, manifest, namespace)
    return file


def _manifests(document: Document) -> Iterator[tuple[Path, object]]:
    """The manifests of a document: none, one, or those of a list as ``kubectl get -o yaml`` writes it."""
    value = document.value
    if value is None:
        return
    if isinstance(value, dict) and str(value.get("kind", "")).endswith("List") and isinstance(value.get("items"), list):
        yield from ((("items", index), item) for index, item in enumerate(value["items"]))
    else:
        yield (), value


def _add(file: _File, path: str, document: Document, where: Path, manifest: object, namespace: str) -> None:
    try:
        obj = parse_manifest(manifest, namespace)
    except ManifestError as error:
        if error.identity is not None:
            file.invalid.add(error.identity)
        file.findings += [
            _placed(finding, path, document, (*where, *below))
            for finding, below in zip(error.findings, error.paths, strict=True)
        ]
        return
    identity = (type(obj), obj.key)
    if identity in file.objects:
        message = f"{type(obj).__name__} {obj.key.name!r} occurs twice in this file"
        finding = Finding("OBJ003", "", message, "remove one, or rename it")
        file.findings.append(_placed(finding, path, document, where))
    file.objects[identity] = obj


def _placed(finding: Finding, path: str, document: Document, where: Path) -> Finding:
    line, column = document.place(where)
    return dataclasses.replace(finding, path=path_text(where), line=line, column=column, file=path)


def _unreadable(path: str, message: str, fix: str, line: int = 0, column: int = 0) -> _File:
    return _File(findings=[Finding("OBJ001", "", message, fix, line=line, column=column, file=path)], is_readable=False)


def _log(finding: Finding, *, is_readable: bool) -> None:
    details = {"file": finding.file, "line": finding.line, "path": finding.path, "error": finding.message, "fix": finding.fix}
    if is_readable:
        _logger.error("objects file has an invalid object, its previous version stays", details=details)
    else:
        _logger.error("objects file cannot be used, its objects stay", details=details)
