"""Checking a pools file: the file itself, and then the document of each of its pools."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from epp.config.instantiate import instantiate
from epp.config.load import load_config
from epp.config.loaded import ConfigSource, Instances, LoadFlags
from epp.errors import ConfigError, Finding
from epp.framework.registry import Registry
from epp.pools.load import PoolEntry, load_pools


class CheckedDocument(NamedTuple):
    """A document of a pool."""

    pool: str
    file: str
    result: Instances | None
    """None if it cannot be used."""
    findings: Sequence[Finding]


class CheckedPools(NamedTuple):
    """What there is to say about a pools file."""

    pools: int
    """How many it names; 0 if it cannot be used."""
    findings: Sequence[Finding]
    """Of the file itself."""
    documents: Sequence[CheckedDocument]

    @property
    def is_valid(self) -> bool:
        """The file and all its documents can be used."""
        return bool(self.pools) and all(document.result is not None for document in self.documents)

    @property
    def all_findings(self) -> list[Finding]:
        """Of the file, then of the documents, each once: pools may share one."""
        found = [*self.findings, *(finding for document in self.documents for finding in document.findings)]
        return [finding for index, finding in enumerate(found) if finding not in found[:index]]


def check_pools(source: ConfigSource, registry: Registry, flags: LoadFlags) -> CheckedPools:
    """Check a pools file and what it names; nothing is contacted."""
    try:
        file = load_pools(source, strict=flags.strict)
    except ConfigError as error:
        return CheckedPools(0, error.findings, ())
    documents = [_checked(pool.name, source, registry, flags) for pool in file.pools for source in _sources(pool)]
    return CheckedPools(len(file.pools), file.findings, documents)


def _sources(pool: PoolEntry) -> Iterator[ConfigSource]:
    for file in (pool.config_file, pool.shadow_config_file):
        if file:
            yield ConfigSource.from_file(file)


def _checked(pool: str, source: ConfigSource, registry: Registry, flags: LoadFlags) -> CheckedDocument:
    try:
        instances = instantiate(load_config(source, registry, flags))
    except ConfigError as error:
        return CheckedDocument(pool, source.name, None, error.findings)
    return CheckedDocument(pool, source.name, instances, [*instances.config.findings, *instances.findings])
