"""Loading a pools file: read, decode, check. What its pools are configured by is loaded for each pool by itself."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from epp.config.decode import decode
from epp.config.header import POOLS_KIND, check_header, kind_of
from epp.config.load import read_source
from epp.config.loaded import ConfigSource
from epp.config.report import Report, UnreadableError
from epp.config.yaml_read import read_nodes
from epp.errors import ConfigError, Finding
from epp.pools.checks import GROUPS, check
from epp.pools.document import MatchSpec, PoolsDocument, PoolSpec
from epp.pools.match import NO_MATCH, Match


@dataclass(frozen=True, slots=True)
class PoolEntry:
    """One pool of the file. Paths are as the process can open them."""

    name: str
    namespace: str = ""
    """Empty = that of the process."""
    group: str = GROUPS[0]
    config_file: str = ""
    """Empty = the built-in document."""
    shadow_config_file: str = ""
    shadow_share: float = 1.0
    objects: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    endpoint_selector: str = ""
    target_ports: tuple[int, ...] = ()
    match: Match = NO_MATCH
    is_default: bool = False
    """Gets what no pool is meant by."""
    grpc_port: int | None = None
    """Of its own; 0 = the system chooses, None = it shares the process's."""
    max_buffered_bytes: int | None = None
    """None = only the limit of the port counts."""


@dataclass(frozen=True, slots=True)
class PoolsFile:
    """A file that can be used."""

    source: ConfigSource
    pools: tuple[PoolEntry, ...]
    findings: tuple[Finding, ...] = ()
    """Warnings and notes."""
    digest: str = ""
    """SHA-256 of its bytes."""


def is_pools_file(source: ConfigSource) -> bool:
    """The document says that it is one; whatever else is wrong with it."""
    report = Report(source.name)
    try:
        data = read_source(source, report)
        return bool(data) and kind_of(read_nodes(data, report)) == POOLS_KIND
    except UnreadableError:
        return False


def load_pools(source: ConfigSource, *, strict: bool = False) -> PoolsFile:
    """Load a pools file; nothing is contacted, and no file that it names is read.

    Args:
        strict: warnings count as errors.

    Raises:
        ConfigError: with every finding, if one of them is an error.
    """
    report = Report(source.name, strict=strict)
    try:
        data = read_source(source, report)
        if not data:
            raise report.stop("CFG001", "", f"{source.name} is empty", "wait until it is written, or correct it")
        document = decode(PoolsDocument, read_nodes(data, report), report)
    except UnreadableError:
        raise ConfigError(report.findings) from None
    check_header(document, report, POOLS_KIND)
    if not document.pools and "pools" not in document.broken:
        at = document.place("pools")
        report.error("CFG120", "pools", "there is no pool", "write an entry for each: `- name: ...`", at=at)
    check(document, report)
    report.raise_if_wrong()
    folder = source.path.parent if source.path is not None else Path()
    pools = tuple(_entry(spec, folder) for spec in _with_default(document.pools))
    return PoolsFile(source, pools, report.findings, hashlib.sha256(data).hexdigest())


def _with_default(pools: tuple[PoolSpec, ...]) -> Iterator[tuple[PoolSpec, bool]]:
    """Each, and whether it gets what no pool is meant by: also the only one of the shared port, if it asks for nothing."""
    shared = [spec for spec in pools if spec.grpc_port is None]
    for spec in pools:
        alone = shared == [spec] and (spec.match is None or not (spec.match.authorities or spec.match.headers))
        yield spec, bool(spec.default) or alone


def _entry(found: tuple[PoolSpec, bool], folder: Path) -> PoolEntry:
    spec, is_default = found

    def path(text: str) -> str:
        return str(folder / text) if text else ""

    match = spec.match or MatchSpec()
    headers = sorted((name.lower(), value) for name, value in (match.headers or {}).items())
    return PoolEntry(
        name=spec.name,
        namespace=spec.namespace,
        group=spec.group or GROUPS[0],
        config_file=path(spec.config_file),
        shadow_config_file=path(spec.shadow_config_file),
        shadow_share=1.0 if spec.shadow_share is None else spec.shadow_share,
        objects=tuple(path(file) for file in spec.objects),
        endpoints=spec.endpoints,
        endpoint_selector=spec.endpoint_selector,
        target_ports=spec.target_ports,
        match=Match(tuple(authority.lower() for authority in match.authorities), tuple(headers)),
        is_default=is_default,
        grpc_port=spec.grpc_port,
        max_buffered_bytes=spec.max_buffered_bytes,
    )
