"""``epp doctor``: what is wrong with a set-up that runs, each finding with its fix."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import os
import ssl
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from epp.config.findings import json_report, text_report
from epp.errors import Finding, Severity
from epp.framework.params import parse_duration
from epp.framework.types import Endpoint

HEALTHY, SICK, USAGE, INTERRUPTED = 0, 1, 2, 130
DEFAULT_PICKER = "http://127.0.0.1:9090"
_DESCRIPTION = """\
Look at a set-up that runs, and say what is wrong and how to repair it: Envoy, the picker, its pool, the model servers,
certificates, and the objects of a cluster. Nothing is changed. docs/doctor.md has all findings.
"""
_EPILOG = """\
examples:
  epp doctor --envoy-admin http://127.0.0.1:9901
  epp doctor --picker https://epp:9090 --token-file /var/run/secrets/kubernetes.io/serviceaccount/token --ca-file ca.crt
  epp doctor --picker= --envoy-config config_dump.json --output json
  epp doctor --picker= --kubeconfig ~/.kube/config --pool-name chat --pool-namespace models

exit status: 0 no errors, 1 errors, 2 wrong usage.
"""


def main(argv: Sequence[str]) -> int:
    """Examine.

    Returns:
        0 without errors (warnings are errors with --strict only), 1 with some, 2 for a command line that cannot be used;
        130 after Ctrl-C.
    """
    try:
        options = make_parser().parse_args(list(argv))
    except SystemExit as stop:  # argparse has printed help or what is wrong
        return HEALTHY if not stop.code else USAGE
    if not options.pool_name and (without := _without_pool(options)):
        print(f"epp doctor: {without} has no effect without --pool-name", file=sys.stderr)
        return USAGE
    try:
        token = options.token_file.read_text(encoding="utf-8").strip() if options.token_file else ""
        tls = _tls(options)
    except (OSError, ValueError) as error:
        print(f"epp doctor: {error}", file=sys.stderr)
        return USAGE
    try:
        return asyncio.run(_run(options, token, tls))
    except KeyboardInterrupt:
        return INTERRUPTED


async def _run(options: argparse.Namespace, token: str, tls: ssl.SSLContext | None) -> int:
    from epp.datalayer.objects import PoolIdentity
    from epp.doctor.cluster.look import ClusterQuestion
    from epp.doctor.examine import Look, examine
    from epp.framework.handle import MetricsFlags

    cluster = None
    if options.pool_name:
        namespace = options.pool_namespace or os.environ.get("NAMESPACE") or "default"
        pool = PoolIdentity(options.pool_name, namespace, options.pool_group)
        cluster = ClusterQuestion(pool, options.kubeconfig, options.service_account)
    examination = await examine(
        Look(
            picker_url=options.picker,
            token=token,
            tls=tls,
            envoy_admin=options.envoy_admin,
            envoy_config=options.envoy_config,
            cluster=cluster,
            grpc=options.grpc,
            endpoints=tuple(
                Endpoint.of(f"{host}:{port}", host, port, {"llm-d.ai/engine-type": options.engine})
                for host, port in options.endpoint
            ),
            metrics_flags=MetricsFlags(
                scheme=options.model_server_metrics_scheme,
                path=options.model_server_metrics_path,
                port=options.model_server_metrics_port,
            ),
            stale_s=options.metrics_staleness_threshold,
            timeout_s=options.timeout,
        )
    )
    findings = [_judged(finding, strict=options.strict) for finding in examination.findings]
    findings.sort(key=lambda finding: list(Severity).index(finding.severity))
    if options.output == "json":
        print(json_report(findings))
    else:
        if findings:
            print(text_report(findings), file=sys.stderr)
        print(_summary(examination.seen, findings))
    return SICK if any(finding.severity is Severity.ERROR for finding in findings) else HEALTHY


def _judged(finding: Finding, *, strict: bool) -> Finding:
    is_raised = strict and finding.severity is Severity.WARNING
    return dataclasses.replace(finding, severity=Severity.ERROR) if is_raised else finding


def _summary(seen: Sequence[str], findings: Sequence[Finding]) -> str:
    counts = [sum(finding.severity is severity for finding in findings) for severity in (Severity.ERROR, Severity.WARNING)]
    words = [f"{count} {noun}{'' if count == 1 else 's'}" for count, noun in zip(counts, ("error", "warning"), strict=True)]
    return f"looked at {', '.join(seen) or 'nothing'}: {', '.join(words)}"


def _without_pool(options: argparse.Namespace) -> str:
    """The first flag that was given and needs a pool."""
    given = {
        "--kubeconfig": options.kubeconfig,
        "--pool-namespace": options.pool_namespace,
        "--service-account": options.service_account,
    }
    return next((flag for flag, value in given.items() if value), "")


def _tls(options: argparse.Namespace) -> ssl.SSLContext | None:
    """How https pages of the picker are verified.

    Raises:
        OSError: the file of authorities cannot be used.
    """
    if not options.ca_file and not options.insecure_skip_verify:
        return None
    try:
        context = ssl.create_default_context(cafile=options.ca_file)
    except OSError as error:
        raise OSError(f"--ca-file {options.ca_file} cannot be used: {error.strerror or error}") from error
    if options.insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _url(text: str) -> str:
    url = urlsplit(text)
    if text and (url.scheme not in ("http", "https") or not url.hostname):
        raise argparse.ArgumentTypeError(f"{text!r} is no URL; write http://HOST:PORT")
    return text.rstrip("/")


def _host_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


def _account(text: str) -> str:
    namespace, slash, name = text.partition("/")
    if text and (not (namespace and slash and name) or "/" in name):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAMESPACE/NAME")
    return text


def _duration(text: str) -> float:
    try:
        value = parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value


def make_parser() -> argparse.ArgumentParser:
    """All flags."""
    parser = argparse.ArgumentParser(
        prog="epp doctor",
        allow_abbrev=False,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    picker = parser.add_argument_group("picker")
    picker.add_argument("--picker", type=_url, default=DEFAULT_PICKER, metavar="URL",
                        help="its metrics port; empty = leave it out (default: %(default)s)")  # fmt: skip
    picker.add_argument("--token-file", type=Path, metavar="FILE", help="file with the bearer token for its metrics port")
    picker.add_argument("--ca-file", metavar="FILE", help="authorities that its https pages are verified by")
    picker.add_argument("--insecure-skip-verify", action="store_true", help="do not verify its https pages")
    picker.add_argument("--grpc", type=_host_port, metavar="HOST:PORT",
                        help="its ext_proc port (default: as in Envoy's configuration)")  # fmt: skip
    picker.add_argument("--metrics-staleness-threshold", type=_duration, default=2.0, metavar="DURATION",
                        help="as the picker has it (default: 2s)")  # fmt: skip
    envoy = parser.add_argument_group("Envoy").add_mutually_exclusive_group()
    envoy.add_argument("--envoy-admin", type=_url, default="", metavar="URL", help="its admin interface")
    envoy.add_argument("--envoy-config", type=Path, metavar="FILE",
                       help="a saved /config_dump, or a bootstrap document")  # fmt: skip
    engines = parser.add_argument_group("model servers")
    engines.add_argument("--endpoint", type=_host_port, action="append", default=[], metavar="HOST:PORT",
                         help="one more than the picker knows; repeatable")  # fmt: skip
    engines.add_argument("--engine", default="vllm", metavar="NAME", help="engine of --endpoint (default: %(default)s)")
    engines.add_argument("--model-server-metrics-scheme", choices=("http", "https"), default="http",
                         help="as the picker has it (default: http)")  # fmt: skip
    engines.add_argument("--model-server-metrics-path", default="/metrics", metavar="PATH",
                         help="as the picker has it (default: %(default)s)")  # fmt: skip
    engines.add_argument("--model-server-metrics-port", type=int, default=0, metavar="PORT",
                         help="as the picker has it; 0 = the endpoint's (default: 0)")  # fmt: skip
    cluster = parser.add_argument_group("cluster")
    cluster.add_argument("--pool-name", default="", metavar="NAME",
                         help="InferencePool to look at, with its pods, routes and picker (default: no cluster)")  # fmt: skip
    cluster.add_argument("--pool-namespace", default="", metavar="NAMESPACE",
                         help="of the pool (default: $NAMESPACE, else default)")  # fmt: skip
    cluster.add_argument("--pool-group", choices=("inference.networking.k8s.io", "inference.networking.x-k8s.io"),
                         default="inference.networking.k8s.io", help="as the picker has it (default: %(default)s)")  # fmt: skip
    cluster.add_argument("--kubeconfig", default="", metavar="FILE",
                         help="how to reach the API server (default: as a pod of the cluster, else $KUBECONFIG)")  # fmt: skip
    cluster.add_argument("--service-account", type=_account, default="", metavar="NAMESPACE/NAME",
                         help="the picker's, whose rights are looked at (default: as its Deployment has it)")  # fmt: skip
    output = parser.add_argument_group("output")
    output.add_argument("--output", choices=("text", "json"), default="text", help="json: all findings as a list")
    output.add_argument("--strict", action="store_true", help="warnings count as errors")
    output.add_argument("--timeout", type=_duration, default=5.0, metavar="DURATION",
                        help="of each page and port (default: 5s)")  # fmt: skip
    return parser
