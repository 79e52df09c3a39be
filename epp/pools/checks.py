"""What is wrong with a pools file beyond how its values are written: names, ports, and who is meant by which request."""

from __future__ import annotations

import re

from epp.config.report import Report
from epp.config.wording import show, suggest
from epp.config.yaml_nodes import ListNode, shallow
from epp.discovery.selector import check_selector
from epp.discovery.static import parse_endpoints
from epp.errors import UsageError
from epp.pools.document import MatchSpec, PoolsDocument, PoolSpec
from epp.pools.match import covers, is_authority, is_header

GROUPS = ("inference.networking.k8s.io", "inference.networking.x-k8s.io")
MAX_TARGET_PORTS = 8
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_RESERVED = ("liveness", "readiness")
"""Names that the health service answers for the process."""


def check(document: PoolsDocument, report: Report) -> None:
    """Report everything."""
    names: dict[str, PoolSpec] = {}
    ports: dict[int, str] = {}
    default = ""
    for spec in document.pools:
        _check_name(spec, names, report)
        _check_endpoints(spec, report)
        _check_selector(spec, report)
        _check_choice(spec, document, report)
        if spec.default and default:
            message = f"the pool {show(default)} is the default already"
            report.error("CFG123", spec.child("default"), message, "keep one of them", value=True, at=spec.place("default"))
        default = default or (spec.name if spec.default else "")
        if spec.grpc_port is not None:
            _check_port(spec, spec.grpc_port, ports, report)
    _check_authorities(document, report)


def _check_name(spec: PoolSpec, names: dict[str, PoolSpec], report: Report) -> None:
    name, path, at = spec.name, spec.child("name"), spec.place("name")
    if not name:
        return
    if not _NAME.fullmatch(name) or name in _RESERVED:
        why = "is what the health service calls the process" if name in _RESERVED else "is no name of a pool"
        fix = "use lower case letters, digits, - and ., as Kubernetes does" if name not in _RESERVED else "choose another one"
        report.error("CFG121", path, f"{show(name)} {why}", fix, value=name, at=at)
    elif name in names:
        line = names[name].place("name").line
        message = f"the name {show(name)} is that of the pool in line {line}"
        report.error("CFG122", path, message, "give each pool a name of its own", value=name, at=at)
    names.setdefault(name, spec)


def _check_endpoints(spec: PoolSpec, report: Report) -> None:
    for index, text in enumerate(spec.endpoints):
        try:
            parse_endpoints([text])
        except UsageError as error:
            message = error.problems[0].removeprefix("--endpoint ")
            _wrong_item(spec, "endpoints", index, "CFG129", message, "write HOST:PORT[,label=value...]", report)
        if text in spec.endpoints[:index]:
            _wrong_item(spec, "endpoints", index, "CFG129", f"{show(text)} is given twice", "keep one", report)
    if spec.group and spec.group not in GROUPS:
        fix = suggest(spec.group, GROUPS)
        at = spec.place("group")
        report.error("CFG037", spec.child("group"), f"no API group is {show(spec.group)}", fix, value=spec.group, at=at)
    share = spec.shadow_share
    if share is not None and not spec.shadow_config_file:
        _excluded(spec, "shadowShare", "there is nothing to show requests to", "name a shadowConfigFile", report)
    elif share is not None and not 0 <= share <= 1:
        _excluded(spec, "shadowShare", "it is a share of the requests", "use a number from 0 to 1", report)


def _check_selector(spec: PoolSpec, report: Report) -> None:
    selector, ports = spec.endpoint_selector, spec.target_ports
    at = spec.place("endpointSelector")
    for problem in check_selector(selector) if selector else ():
        report.error("CFG130", spec.child("endpointSelector"), problem, value=selector, at=at)
    if selector and spec.endpoints:
        _excluded(spec, "endpointSelector", "endpoints names the model servers already", "keep one of them", report)
    if selector and not ports and "targetPorts" not in spec.broken:
        _excluded(spec, "endpointSelector", "targetPorts is missing", "give their ports: `targetPorts: [8000]`", report)
    if ports and not selector and "endpointSelector" not in spec.broken:
        _excluded(spec, "targetPorts", "it has a meaning only with endpointSelector", "remove it", report)
    if len(ports) > MAX_TARGET_PORTS:
        _excluded(spec, "targetPorts", f"{len(ports)} ports are too many", f"give at most {MAX_TARGET_PORTS}", report)
    for index, port in enumerate(ports):
        if not 1 <= port <= 65535:
            _wrong_item(spec, "targetPorts", index, "CFG128", f"{port} is not a port", "use 1 to 65535", report)
        elif port in ports[:index]:
            _wrong_item(spec, "targetPorts", index, "CFG128", f"{port} is given twice", "keep one", report)


def _check_choice(spec: PoolSpec, document: PoolsDocument, report: Report) -> None:
    match = spec.match
    asks = match is not None and (match.authorities or match.headers)
    alone = sum(other.grpc_port is None for other in document.pools) == 1
    if spec.grpc_port is not None:
        for key in ("match", "default"):
            if spec.gives(key):
                message = "is never asked: the pool has grpcPort, and gets all that comes there and nothing else"
                _excluded(spec, key, message, f"remove it, or grpcPort to share --grpc-port and choose by {key}", report)
    elif not asks and not spec.default and not alone and "match" not in spec.broken:
        message = f"no request would reach the pool {show(spec.name)}"
        fix = "give it match with authorities or headers, or grpcPort, or `default: true`"
        report.error("CFG125", spec.path, message, fix, at=spec.place())
    if match is None:
        return
    for index, authority in enumerate(match.authorities):
        if not is_authority(authority.lower()):
            message, fix = f"{show(authority)} is no authority", "write a host, `*.` and a suffix, or either with a port"
            _wrong_item(match, "authorities", index, "CFG127", message, fix, report)
    for name in match.headers or {}:
        if not is_header(name.lower()):
            path, at = f"{match.child('headers')}.{name}", match.place("headers")
            report.error("CFG127", path, f"{show(name)} is no name of a header", "such as x-pool", value=name, at=at)


def _check_port(spec: PoolSpec, port: int, ports: dict[int, str], report: Report) -> None:
    path, at = spec.child("grpcPort"), spec.place("grpcPort")
    if not 0 <= port <= 65535:
        fix = "use 1 to 65535, or 0 to let the system choose"
        report.error("CFG128", path, f"{port} is not a port", fix, value=port, at=at)
    elif port in ports and port:
        message = f"{port} is the port of the pool {show(ports[port])}"
        report.error("CFG128", path, message, "give each pool its own", value=port, at=at)
    ports.setdefault(port, spec.name)


def _check_authorities(document: PoolsDocument, report: Report) -> None:
    """An authority that an earlier pool takes, whatever the headers, never comes to a later one."""
    taken: list[tuple[str, str]] = []
    for spec in document.pools:
        if spec.match is None or spec.grpc_port is not None:
            continue
        for index, authority in enumerate(spec.match.authorities):
            by = next((pool for wanted, pool in taken if covers(wanted, authority.lower())), None)
            if by is not None:
                message = f"{show(authority)} never comes here: the pool {show(by)} above takes it"
                fix = "put the pool with the narrower match first, or keep one of them"
                _wrong_item(spec.match, "authorities", index, "CFG126", message, fix, report)
        if not spec.match.headers:
            taken += [(authority.lower(), spec.name) for authority in spec.match.authorities]


def _excluded(spec: PoolSpec, key: str, message: str, fix: str, report: Report) -> None:
    report.error("CFG124", spec.child(key), message, fix, at=spec.key_place(key))


def _wrong_item(spec: PoolSpec | MatchSpec, key: str, index: int, code: str, message: str, fix: str, report: Report) -> None:
    """An error about an entry of a list."""
    node = spec.node.entries[key].node if spec.node is not None else None
    items = node.items if isinstance(node, ListNode) else ()
    value, at = (shallow(items[index]), items[index].place) if index < len(items) else (None, spec.place(key))
    report.error(code, f"{spec.child(key)}[{index}]", message, fix, value=value, at=at)
