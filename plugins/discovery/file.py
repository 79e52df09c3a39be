"""file-discovery: endpoints from a YAML or JSON file."""

from __future__ import annotations

import asyncio
import dataclasses

from pydantic import Field

from epp.errors import ConfigError, Finding, Severity
from epp.framework import log
from epp.framework.file_watch import FileWatch
from epp.framework.handle import PluginContext
from epp.framework.interfaces import EndpointDiscovery, EndpointNotifier, Role
from epp.framework.params import Params
from epp.framework.registry import PluginType
from epp.framework.types import Endpoint, EndpointId
from plugins.discovery.endpoint_file import EndpointFile, read_endpoint_file

_logger = log.get(__name__)

TYPE = "file-discovery"
_MAX_SHOWN = 100


class FileDiscoveryParams(Params):
    """Parameters of file-discovery."""

    path: str = Field(min_length=1, description="The file; a relative path is relative to the working directory.")
    watch_file: bool = Field(False, description="Follow changes of the file.")


class FileDiscovery:
    """Reports the endpoints of a file.

    At the start every mistake ends the process. Later a file that cannot be read, or has no list of endpoints, changes
    nothing; an entry that became invalid keeps its previous version; an entry that is gone is deleted.
    Source: llm-d-router: pkg/epp/framework/plugins/datalayer/discovery/file/plugin.go
    """

    def __init__(self, path: str, *, watches: bool = False) -> None:
        self.ready = asyncio.Event()
        self._path = path
        self._watches = watches
        self._notifier: EndpointNotifier | None = None
        self._current: dict[EndpointId, Endpoint] = {}

    async def run(self, notifier: EndpointNotifier) -> None:
        """Report the endpoints, then follow the file if that is wanted.

        Raises:
            ConfigError: the first reading found mistakes.
        """
        watch = FileWatch([self._path])
        file = read_endpoint_file(self._path)
        _check_first(file)
        self._notifier = notifier
        self._apply(file)
        self.ready.set()
        if self._watches:
            await watch.run(self.reload, asyncio.Event())
        else:
            await asyncio.Event().wait()

    def reload(self) -> None:
        """Read the file again."""
        if self._notifier is None:
            return
        file = read_endpoint_file(self._path)
        for finding in file.findings:
            _log(finding, is_readable=file.is_readable)
        if file.is_readable:
            self._apply(file)

    def debug_state(self) -> object:
        """The ids, without addresses and labels."""
        return {"endpoints": sorted(self._current)[:_MAX_SHOWN], "total": len(self._current)}

    def _apply(self, file: EndpointFile) -> None:
        assert self._notifier is not None
        wanted: dict[EndpointId, Endpoint] = {}
        for entry in file.entries:
            if entry.endpoint is not None:
                wanted[entry.endpoint.id] = entry.endpoint
            elif entry.id is not None and entry.id in self._current:
                wanted.setdefault(entry.id, self._current[entry.id])
        self._notifier.replace_all(tuple(wanted.values()))
        if wanted != self._current:
            _logger.info("endpoints read from file", file=self._path, count=len(wanted))
        self._current = wanted


def _check_first(file: EndpointFile) -> None:
    """Refuse a file with mistakes, unknown keys included; an empty one is a pool that is empty so far."""
    findings = [dataclasses.replace(finding, severity=Severity.ERROR) for finding in file.findings]
    if file.is_blank and len(findings) == 1:
        _log(findings[0], is_readable=True)
        return
    if findings:
        raise ConfigError(findings)


def _log(finding: Finding, *, is_readable: bool) -> None:
    details = {
        "file": finding.file,
        "line": finding.line,
        "path": finding.path,
        "error": finding.message,
        "value": repr(finding.value) if finding.value is not None else "",
        "fix": finding.fix,
    }
    if finding.severity is Severity.WARNING:
        _logger.warning("endpoint file has an unknown key", details=details)
    elif is_readable:
        _logger.error("endpoint file has an invalid entry, its previous version stays", details=details)
    else:
        _logger.error("endpoint file cannot be used, the endpoints stay", details=details)


def _create(context: PluginContext, params: FileDiscoveryParams) -> EndpointDiscovery:
    return FileDiscovery(params.path, watches=params.watch_file)


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.DISCOVERY}),
    summary="Endpoints from a YAML or JSON file.",
    params=FileDiscoveryParams,
    factory=_create,
    example="""
        path: endpoints.yaml
        watchFile: true
    """,
)
