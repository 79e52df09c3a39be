"""``epp manifests --pools-file``: the file and all that it names, checked and read."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from epp.commands.check_pools import CheckedPools, check_pools
from epp.config.findings import text_report
from epp.config.loaded import ConfigSource, LoadFlags
from epp.deploy.pools import DeployedPool, DeployedPools
from epp.errors import UsageError
from epp.pools.load import PoolEntry, load_pools
from epp.process.plugin_types import build_registry

_MAX_NAME = 200
"""Keys of a ConfigMap may have 253 characters; ours have some around the name."""


def read_pools(file: str) -> DeployedPools | None:
    """The pools of a file; None if it cannot be served. What was found goes to standard error."""
    registry, unloaded = build_registry()
    source = ConfigSource.from_file(file)
    checked = check_pools(source, registry, LoadFlags(for_serve=True))
    if findings := [*unloaded, *checked.all_findings]:
        print(text_report(findings), file=sys.stderr)
    if not checked.is_valid:
        return None
    try:
        return DeployedPools(tuple(_read(entry, checked) for entry in load_pools(source).pools))
    except OSError as error:
        print(f"epp manifests: {error.filename}: {error.strerror}", file=sys.stderr)
        return None


def _read(entry: PoolEntry, checked: CheckedPools) -> DeployedPool:
    """Raises OSError: a file cannot be read."""
    of_pool = [document for document in checked.documents if document.pool == entry.name]
    results = [document.result for document in of_pool if document.file == entry.config_file]
    return DeployedPool(
        entry,
        _text(entry.config_file),
        _text(entry.shadow_config_file),
        tuple(map(_text, entry.objects)),
        discovers=any(result is not None and result.config.discovery is not None for result in results),
    )


def _text(file: str) -> str:
    return Path(file).read_text(encoding="utf-8") if file else ""


def check_deployed(pools: DeployedPools, taken: Sequence[int], namespace: str, *, has_gateway: bool) -> None:
    """What can be served, and yet not be deployed.

    Args:
        taken: ports that the picker has beside those of pools.
        namespace: of the picker.
        has_gateway: routes are made.

    Raises:
        UsageError: with everything.
    """
    problems = []
    for pool in pools.pools:
        if len(pool.name) > _MAX_NAME:
            problems.append(f"{pool.name} is too long for a key of a ConfigMap: at most {_MAX_NAME} characters")
        if pool.entry.grpc_port == 0:
            problems.append(f"grpcPort of {pool.name} is 0: a Service needs a port that is known, such as 9102")
        elif pool.entry.grpc_port in taken:
            problems.append(f"grpcPort {pool.entry.grpc_port} of {pool.name} is one of the picker's: choose another")
    if has_gateway:
        every = [pool.name for pool in pools.made(namespace) if not (pool.hostnames or pool.entry.match.headers)]
        if len(every) > 1:
            names = " and ".join(every)
            problems.append(f"the HTTPRoutes of {names} would all take every request: leave --gateway out, and write them")
    if problems:
        raise UsageError(problems)
