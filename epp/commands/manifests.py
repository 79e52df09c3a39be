"""``epp manifests``: the Kubernetes manifests of a picker, filled in."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import yaml

from epp.commands.check import INVALID, USAGE, VALID, check_document
from epp.commands.pools_to_deploy import check_deployed, read_pools
from epp.deploy.objects import GRPC, HEALTH, IMAGE, METRICS, Deployment, objects
from epp.errors import UsageError
from epp.process.options import MAX_TARGET_PORTS

DESCRIPTION = """\
Print what a picker needs in a cluster: service account, role with the least rights, configuration, service, deployment and
InferencePool; with --gateway an HTTPRoute too. With --pools-file it is one picker for all pools of that file.
Nothing is sent anywhere: pipe it into `kubectl apply -f -`, or keep it.
The InferencePool is a custom resource, which a gateway with support for it brings along.
"""
EPILOG = """\
examples:
  epp manifests --pool chat --config epp.yaml --label app=vllm-chat | kubectl apply -f -
  epp manifests --pool chat --replicas 2 --gateway inference-gateway > chat.yaml
  epp manifests --pools-file pools.yaml --name models > models.yaml
"""
_NAME_OF_POOLS = "pools"
_POOL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
"""Other objects may have dots and begin with a digit, but not the Service, whose name this begins."""
_MAX_POOL = 59
"""A Service may have 63 characters, four of which are the suffix of ours."""
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_MAX_NAMESPACE = 63


def main(argv: Sequence[str]) -> int:
    """Print manifests.

    Returns:
        0, 1 for a configuration that cannot be used, 2 for a wrong command line.
    """
    parser = _parser()
    try:
        options = parser.parse_args(list(argv))
        _check(parser, options)
        if options.pools_file:
            pools = read_pools(options.pools_file)
            if pools is None:
                return INVALID
            try:
                check_deployed(pools, (GRPC, HEALTH, METRICS), options.namespace, has_gateway=bool(options.gateway))
            except UsageError as error:
                parser.error(f"argument --pools-file: {error}")
            for pool in pools.not_made(options.namespace):
                where = f"{pool.entry.namespace or options.namespace}/{pool.name} of {pool.entry.group}"
                print(f"epp manifests: the InferencePool {where} is not made here; it is expected to be there", file=sys.stderr)
            wanted = replace(_common(options), pool=options.name or _NAME_OF_POOLS, pools=pools)
        else:
            if options.config and not check_document(options.config):
                return INVALID
            config = Path(options.config).read_text(encoding="utf-8") if options.config else ""
            wanted = replace(_common(options), config=config, labels=dict(options.label))
    except SystemExit as stop:  # argparse has printed help or what is wrong
        return VALID if not stop.code else USAGE
    print(to_yaml(wanted), end="")
    return VALID


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """What argparse does not see: flags that exclude each other, ports that are given twice."""
    if len(options.port) > MAX_TARGET_PORTS or len(set(options.port)) < len(options.port):
        parser.error(f"argument --port: a pool has at most {MAX_TARGET_PORTS} ports, each once")
    if options.name and not options.pools_file:
        parser.error("argument --name: without --pools-file the objects are called by --pool")
    if options.pools_file and options.config:
        parser.error("argument --config: each pool of --pools-file names its own, as configFile")
    if options.pools_file and options.label:
        parser.error("argument --label: the pods of a pool of --pools-file are those with app=POOL; edit what is printed")


def _common(options: argparse.Namespace) -> Deployment:
    """What is said of a picker of one pool and of one of several. Of several, a document is no reason to restart them all."""
    way = options.config_reload or ("hot" if options.pools_file else "restart")
    return Deployment(
        pool=options.pool or "",
        namespace=options.namespace,
        image=options.image,
        ports=tuple(options.port) or (8000,),
        replicas=options.replicas,
        reloads=way == "hot",
        gateway=options.gateway,
    )


def to_yaml(wanted: Deployment) -> str:
    """All objects as documents of one file."""
    return yaml.dump_all(objects(wanted), Dumper=_Dumper, sort_keys=False, width=130, explicit_start=True)


class _Dumper(yaml.SafeDumper):
    """Long texts as they are, and nothing by reference."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 — of the base class
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="epp manifests", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--pool", type=_pool, metavar="NAME", help="name of the InferencePool; other objects are NAME-epp")
    which.add_argument(
        "--pools-file", default="", metavar="FILE", help="EndpointPickerPools, checked with all that it names: several pools"
    )
    add(
        "--name", type=_pool,
        help=f"with --pools-file: the picker's objects are NAME-epp (default: {_NAME_OF_POOLS})",
    )  # fmt: skip
    add("--config", default="", metavar="FILE", help="EndpointPickerConfig, which is checked (default: the built-in one)")
    add(
        "--config-reload", default="", choices=("restart", "hot"),
        help="what a changed document does: new pods, or the ones that run take it over "
        "(default: restart; hot with --pools-file)",
    )  # fmt: skip
    add(
        "--namespace",
        default="default",
        type=_namespace,
        help="of all objects, but for the rights on pools elsewhere (default: %(default)s)",
    )
    add("--image", default=IMAGE, help="of the picker (default: %(default)s)")
    add(
        "--label", action="append", default=[], type=_label, metavar="KEY=VALUE",
        help="label of the model servers' pods; repeatable (default: app=NAME)",
    )  # fmt: skip
    add("--port", action="append", default=[], type=_port, help="of the model servers; repeatable (default: 8000)")
    add("--replicas", default=1, type=_replicas, metavar="N", help="more than one elect a leader (default: 1)")
    add("--gateway", default="", metavar="NAME", help="Gateway whose requests go to the pool (default: no HTTPRoute)")
    return parser


def _pool(text: str) -> str:
    if not _POOL.fullmatch(text) or len(text) > _MAX_POOL:
        msg = f"{text!r} is no name that a Service can begin with: at most {_MAX_POOL} of a-z 0-9 - , a letter first, no - last"
        raise argparse.ArgumentTypeError(msg)
    return text


def _namespace(text: str) -> str:
    if not _NAMESPACE.fullmatch(text) or len(text) > _MAX_NAMESPACE:
        msg = f"{text!r} is no namespace: at most {_MAX_NAMESPACE} of a-z 0-9 - , alphanumeric at both ends"
        raise argparse.ArgumentTypeError(msg)
    return text


def _label(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not (key and sign):
        raise argparse.ArgumentTypeError(f"{text!r} is no label: write key=value")
    return key, value


def _port(text: str) -> int:
    if not (text.isdecimal() and 0 < int(text) < 65536):
        raise argparse.ArgumentTypeError(f"{text!r} is no port: use 1 to 65535, at most {MAX_TARGET_PORTS} of them")
    return int(text)


def _replicas(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return int(text)
