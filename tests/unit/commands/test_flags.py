"""Command lines and environments become options, or problems that say what to write instead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import pytest

from epp.commands.flag_table import FLAGS
from epp.commands.flags import CommandLine, help_text, parse
from epp.errors import UsageError
from epp.framework.params import format_duration
from epp.process.options import Options

POOL = ["--pool-name", "a"]
IN_CLUSTER = {"NAMESPACE": "llm"}
CHART = [
    "--pool-name=release",
    "--grpc-port=9002",
    "--health-checking",
    "--grpc-health-port=9003",
    "--metrics-port=9090",
    "--config-file=/config/config.yaml",
    "--tracing=false",
    "--v=3",
    "--zap-encoder=json",
    "--zap-stacktrace-level=error",
    "--metrics-endpoint-auth=false",
    "--cache-info-metric=vllm:cache_config_info",
    "--kv-cache-usage-percentage-metric=vllm:gpu_cache_usage_perc",
    "--total-queued-requests-metric=vllm:num_requests_waiting",
    "--lora-info-metric=vllm:lora_requests_info",
]


def read(*argv: str, environ: Mapping[str, str] = IN_CLUSTER) -> CommandLine:
    return parse(argv, environ)


def options(*argv: str, environ: Mapping[str, str] = IN_CLUSTER) -> Options:
    return read(*argv, environ=environ).options


def changed(made: Options) -> dict[str, Any]:
    """The fields that are not as by default."""
    usual = Options()
    return {f.name: getattr(made, f.name) for f in fields(Options) if getattr(made, f.name) != getattr(usual, f.name)}


def problems(*argv: str, environ: Mapping[str, str] = IN_CLUSTER) -> list[str]:
    with pytest.raises(UsageError) as caught:
        parse(argv, environ)
    return list(caught.value.problems)


# ── command lines of charts ──


def test_the_charts_command_line() -> None:
    command = read(*CHART)
    assert changed(command.options) == {
        "pool_name": "release",
        "health_checking": True,
        "config_file": "/config/config.yaml",
        "tracing": False,
        "verbosity": 3,
        "metrics_endpoint_auth": False,
        "namespace": "llm",
        "metric_specs": {
            "cache_info": "vllm:cache_config_info",
            "kv_usage": "vllm:gpu_cache_usage_perc",
            "queued": "vllm:num_requests_waiting",
            "lora": "vllm:lora_requests_info",
        },
    }, "A1: the whole command line of the chart"
    assert [warning.split()[0] for warning in command.warnings] == [
        "--cache-info-metric",
        "--kv-cache-usage-percentage-metric",
        "--total-queued-requests-metric",
        "--lora-info-metric",
    ], "one for each metric flag, and no other"
    assert command.given["v"] == "3"


def test_no_arguments_are_the_defaults() -> None:
    assert changed(options(environ={})) == {}
    assert read(environ={}).warnings == ()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        pytest.param(
            [*POOL, "--endpoint-selector", "app=x", "--endpoint-target-ports", "8000"],
            ["pool-name", "not both"],
            id="A3, F20: two ways to find endpoints",
        ),
        pytest.param(["--endpoint-selector", "app=x"], ["endpoint-target-ports"], id="A4: a selector without ports"),
        pytest.param(
            ["--endpoint-selector", "app in (x", "--endpoint-target-ports", "8000"],
            ["--endpoint-selector", "'app in (x'", "key in (a,b)"],
            id="A5: a selector that cannot be read",
        ),
        pytest.param(
            [*POOL, "--config-file", "f", "--config-text", "t"], ["--config-file", "--config-text"], id="A6: two configurations"
        ),
        pytest.param([*POOL, "--confg-file", "f"], ["unknown flag: --confg-file", "--config-file"], id="A7: a misspelt flag"),
        pytest.param(["-pool-name=a"], ["unknown flag: -pool-name", "use --pool-name"], id="A8: one dash"),
        pytest.param(
            ["-pool-name", "a"], ["unknown flag: -pool-name", "use --pool-name"], id="A8: one dash and a separate value"
        ),
        pytest.param([*POOL, "--grpc-port", "70000"], ["--grpc-port=70000", "65535"], id="A10: a port out of range"),
        pytest.param(
            [*POOL, "--grpc-port", "9003"],
            ["--grpc-port and --grpc-health-port are both 9003"],
            id="A10: one port for two servers",
        ),
        pytest.param(
            [*POOL, "--refresh-metrics-interval", "50"],
            ["--refresh-metrics-interval", "50ms"],
            id="A12: an interval without its unit",
        ),
        pytest.param(
            [*POOL, "--metrics-cert-dir", "d", "--metrics-endpoint-auth=false"],
            ["TLS without authentication"],
            id="A14: TLS for metrics without authentication",
        ),
        pytest.param(
            [*POOL, "--tls-min-version", "TLS12"],
            ["--tls-min-version", "VersionTLS12"],
            id="A15: a TLS version that is misspelt",
        ),
        pytest.param(["--watch-config-file", *POOL], ["--watch-config-file needs --config-file"], id="A19: nothing to watch"),
    ],
)
def test_command_lines_that_are_refused(argv: list[str], words: list[str]) -> None:
    (problem,) = problems(*argv)
    assert all(word in problem for word in words), problem


def test_a17_f20_too_many_ports() -> None:
    found = problems(*POOL, "--endpoint-target-ports", "1,2,3,4,5,6,7,8,9")
    assert any("at most 8" in problem for problem in found)


def test_f20_a_port_that_is_none() -> None:
    (problem,) = problems("--endpoint-selector", "app=x", "--endpoint-target-ports", "70000")
    assert problem == "--endpoint-target-ports takes ports from 1 to 65535"


def test_f19_a_selector_and_its_ports() -> None:
    selected = ["--endpoint-selector", "app in (a,b),!old", "--endpoint-target-ports"]
    made = options(*selected, "8000,8001")
    assert made.needs_kubernetes
    assert (made.endpoint_selector, made.endpoint_target_ports) == ("app in (a,b),!old", (8000, 8001))
    assert problems(*selected, "8000,8000,8001") == ["--endpoint-target-ports names a port twice"]


def test_a_value_behind_a_boolean() -> None:
    command = read(*POOL, "--secure-serving", "false")
    assert command.options.secure_serving is False, "A9: the value counts, with a warning"
    (warning,) = command.warnings
    assert "write --secure-serving=false" in warning


def test_a_short_interval_is_raised() -> None:
    command = read(*POOL, "--refresh-metrics-interval", "10ms")
    assert command.options.refresh_metrics_interval_s == 0.05, "A11: 50 ms is the least"
    assert command.options.refresh_metrics_interval_is_given
    assert command.warnings == ("--refresh-metrics-interval 10ms is raised to 50ms",)


@pytest.mark.parametrize("interval", ["0", "0s", "-1s"])
def test_an_interval_of_nothing(interval: str) -> None:
    assert problems(*POOL, f"--refresh-metrics-interval={interval}") == [
        "--refresh-metrics-interval must be positive, such as 50ms"
    ]


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ('"sglang:num_queue_reqs"', "sglang:num_queue_reqs"),
        ("sglang:num_queue_reqs", "sglang:num_queue_reqs"),
        ('name{a="b"}', 'name{a="b"}'),
        ("", ""),
        ('"', '"'),
        ('""', ""),
    ],
    ids=["A13 quoted", "plain", "with labels", "empty: disabled", "one quote", "quotes only"],
)
def test_metric_names(text: str, spec: str) -> None:
    assert options(*POOL, f"--total-queued-requests-metric={text}").metric_specs == {"queued": spec}


@pytest.mark.parametrize("argv", [["-v3"], ["-v=3"], ["--v=3"], ["-v", "3"], ["--v", "3"]], ids="".join)
def test_verbosity(argv: list[str]) -> None:
    assert options(*POOL, *argv).verbosity == 3, "A16: all spellings of the verbosity"


@pytest.mark.parametrize(
    ("argv", "verbosity"),
    [
        ([], 2),
        (["-v0"], 0),
        (["-v=-1"], 2),
        (["-v-1"], 2),
        (["--v="], 2),
        (["-v="], 2),
        (["--zap-log-level=debug"], 4),
        (["--zap-log-level=info"], 2),
        (["--zap-log-level=error"], -1),
        (["--zap-log-level=panic"], -1),
        (["--zap-log-level=5"], 5),
        (["--zap-log-level="], 2),
        (["--zap-log-level=debug", "-v3"], 3),
        (["-v3", "--zap-log-level=debug"], 3),
        (["-v=-1", "--zap-log-level=debug"], 2),
        (["--v=", "--zap-log-level=debug"], 4),
    ],
    ids=str,
)
def test_levels(argv: list[str], verbosity: int) -> None:
    assert options(*argv).verbosity == verbosity


@pytest.mark.parametrize("level", ["trace", "0", "-1", "²", "1.5"])
def test_levels_that_do_not_exist(level: str) -> None:
    (problem,) = problems(f"--zap-log-level={level}")
    assert problem.endswith("for --zap-log-level: use debug, info, error, panic or a number above 0")


def test_other_flags_of_zap() -> None:
    command = read("--zap-encoder=console", "--zap-stacktrace-level=panic", "--zap-time-encoding=epoch", "--zap-devel")
    assert changed(command.options) == {
        "zap_encoder": "console",
        "zap_stacktrace_level": "panic",
        "zap_time_encoding": "epoch",
        "namespace": "llm",
    }
    assert command.warnings == ("--zap-devel: it has no effect; records have one form",)
    assert read("--zap-devel=false").warnings == ()


def test_negated_booleans() -> None:
    made = options(*POOL, "--no-tracing", "--no-legacy-metrics")
    assert (made.tracing, made.legacy_metrics) == (False, False), "A20: --no- turns a boolean off"


# ── syntax ──


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--legacy-metrics"], True),
        (["--no-legacy-metrics"], False),
        (["--legacy-metrics="], True),
        *[([f"--legacy-metrics={text}"], True) for text in ("1", "t", "T", "true", "TRUE", "True")],
        *[([f"--legacy-metrics={text}"], False) for text in ("0", "f", "F", "false", "FALSE", "False")],
        *[(["--legacy-metrics", text], False) for text in ("0", "f", "F", "false", "FALSE", "False")],
        (["--no-legacy-metrics", "--legacy-metrics"], True),
        (["--legacy-metrics", "--no-legacy-metrics"], False),
    ],
    ids=str,
)
def test_booleans(argv: list[str], expected: bool) -> None:
    assert options(*argv).legacy_metrics is expected


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (["--legacy-metrics=yes"], 'invalid value "yes" for --legacy-metrics: use true or false'),
        (["--legacy-metrics", "yes"], "unexpected argument 'yes'; flags begin with --"),
        (["--no-legacy-metrics=true"], "unknown flag: --no-legacy-metrics; did you mean --legacy-metrics?"),
        (["--no-pool-name"], "unknown flag: --no-pool-name; did you mean --pool-name?"),
        (["--pool-n", "x"], "unknown flag: --pool-n; did you mean --pool-name?"),
        (["--zzz"], "unknown flag: --zzz; --help lists all flags"),
        (["--zzz=--x"], "unknown flag: --zzz; --help lists all flags"),
        (["-no-tracing"], "unknown flag: -no-tracing; use --no-tracing, with two dashes"),
        (["-version"], "unknown flag: -version; --help lists all flags"),
        (["-x"], "unexpected argument '-x'; flags begin with --"),
        (["serve"], "unexpected argument 'serve'; flags begin with --"),
        (["--", "--pool-name=a"], "unexpected argument '--pool-name=a'; flags begin with --"),
        ([""], "unexpected argument ''; flags begin with --"),
        (["--pool-name"], "flag needs a value: --pool-name"),
        (["-v"], "flag needs a value: --v"),
        (["-vx"], "unknown flag: -vx; --help lists all flags"),
        (["-v=x"], 'invalid value "x" for --v: use a whole number'),
        (["--grpc-port=90.5"], 'invalid value "90.5" for --grpc-port: use a whole number'),
        (["--grpc-port=²"], 'invalid value "\\u00b2" for --grpc-port: use a whole number'),
        (["--zap-encoder=xml"], 'invalid value "xml" for --zap-encoder: use one of json, console'),
        (["--transport=udp"], 'invalid value "udp" for --transport: use one of auto, grpcio, native'),
        (["--max-buffered-bytes=-1"], 'invalid value "-1" for --max-buffered-bytes: must not be negative'),
        (["--max-buffered-bytes=1e9999999"], 'invalid value "1e9999999" for --max-buffered-bytes: the exponent is too large'),
    ],
    ids=str,
)
def test_what_is_no_flag(argv: list[str], problem: str) -> None:
    assert problems(*argv) == [problem]


def test_all_problems_are_told_together() -> None:
    found = problems("--zzz", "x", "--grpc-port=x", "y", "--config-file=a", "--config-text=b")
    assert [problem.split(";")[0].split(":")[0] for problem in found] == [
        "unknown flag",
        "unexpected argument 'y'",
        'invalid value "x" for --grpc-port',
        "cannot use both --config-file and --config-text",
    ]


def test_separate_and_joined_values_are_the_same() -> None:
    assert options("--pool-name", "a", "--grpc-port", "1") == options("--pool-name=a", "--grpc-port=1")
    assert options("--config-text", "--x").config_text == "--x", "a value may begin with dashes, as pflag has it"
    assert options("--config-text=a=b").config_text == "a=b"


def test_of_a_repeated_flag_the_last_wins() -> None:
    assert options("--pool-name=a", "--pool-name=b").pool_name == "b"
    assert options("--tls-cipher-suites=A,B", "--tls-cipher-suites=C").tls_cipher_suites == ("C",)
    assert options("--pool-name=a", "--pool-name=").pool_name == ""


def test_endpoints_and_objects_are_gathered() -> None:
    made = options("--endpoint=h:1", "--endpoint=", "--endpoint", "h:2,role=decode", "--objects=o.yaml")
    assert (made.endpoints, made.objects) == (("h:1", "h:2,role=decode"), ("o.yaml",))


@pytest.mark.parametrize(
    ("argv", "field", "expected"),
    [
        ("--endpoint-target-ports= 8000, 8001,", "endpoint_target_ports", (8000, 8001)),
        ("--tls-cipher-suites= A , B,", "tls_cipher_suites", ("A", "B")),
        ("--drain-timeout=1m30s", "drain_timeout_s", 90.0),
        ("--drain-timeout=0", "drain_timeout_s", 0.0),
        ("--max-request-body-bytes=10MiB", "max_request_body_bytes", 10 * 2**20),
        ("--max-request-body-bytes=10Mi", "max_request_body_bytes", 10 * 2**20),
        ("--max-request-body-bytes=10MB", "max_request_body_bytes", 10_000_000),
        ("--max-request-body-bytes=10B", "max_request_body_bytes", 10),
        ("--max-request-body-bytes=1e3", "max_request_body_bytes", 1000),
        ("--max-request-body-bytes=0", "max_request_body_bytes", 0),
        ("--leader-election-lease-duration=20s", "leader_election_lease_duration_s", 20.0),
        ("--pool-group=inference.networking.x-k8s.io", "pool_group", "inference.networking.x-k8s.io"),
    ],
)
def test_values(argv: str, field: str, expected: object) -> None:
    more = ["--endpoint-selector=a"] if field == "endpoint_target_ports" else []
    assert getattr(options(argv, *more), field) == expected


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.name)
def test_an_empty_value_is_none(flag: Any) -> None:
    made = options(f"--{flag.name}=", environ={})
    empty = {"metric_specs"} if flag.kind.hint == "metric" else set()
    assert changed(made).keys() == empty


@pytest.mark.parametrize("action", [["--help"], ["-h"], ["--pool-name=a", "--zzz", "--help"]], ids=str)
def test_help_wins_over_problems(action: list[str]) -> None:
    assert read(*action).action == "help"
    assert read("--version").action == "version"


# ── environment ──


def test_every_flag_has_a_variable_of_its_own() -> None:
    names = [flag.env for flag in FLAGS]
    assert len(set(names)) == len(names)
    assert all(name.startswith("EPP_") and name.replace("_", "").isalnum() and name.isupper() for name in names)


@pytest.mark.parametrize(
    ("argv", "environ", "port"),
    [
        ([], {}, 9002),
        ([], {"EPP_GRPC_PORT": "1"}, 1),
        (["--grpc-port=2"], {"EPP_GRPC_PORT": "1"}, 2),
        ([], {"EPP_GRPC_PORT": ""}, 9002),
        (["--grpc-port="], {"EPP_GRPC_PORT": "1"}, 9002),
    ],
    ids=["default", "environment", "flag before environment", "empty variable", "empty flag before environment"],
)
def test_precedence(argv: list[str], environ: dict[str, str], port: int) -> None:
    assert options(*argv, environ=environ).grpc_port == port


def test_values_in_the_environment() -> None:
    environ = {
        "EPP_SECURE_SERVING": "false",
        "EPP_V": "4",
        "EPP_DRAIN_TIMEOUT": "5s",
        "EPP_ENDPOINT": "h:1",
        "EPP_TOTAL_QUEUED_REQUESTS_METRIC": "q",
        "EPP_UNKNOWN": "x",
    }
    made = options(environ=environ)
    assert changed(made) == {
        "secure_serving": False,
        "verbosity": 4,
        "drain_timeout_s": 5.0,
        "endpoints": ("h:1",),
        "metric_specs": {"queued": "q"},
    }


def test_a_wrong_variable_is_named() -> None:
    assert problems(environ={"EPP_GRPC_PORT": "x"}) == ['invalid value "x" for EPP_GRPC_PORT: use a whole number']


@pytest.mark.parametrize("link", ["tcp://10.0.0.1:9090", "udp://10.0.0.1:9090"])
def test_what_kubernetes_sets_beside_a_service_is_no_flag(link: str) -> None:
    command = read(environ={"EPP_METRICS_PORT": link})
    assert command.options.metrics_port == 9090
    assert command.warnings == ("EPP_METRICS_PORT is ignored: Kubernetes sets it for a Service of that name",)


@pytest.mark.parametrize(
    ("argv", "environ", "namespace", "warned"),
    [
        ([], {}, "default", False),
        (POOL, {}, "default", True),
        (POOL, {"NAMESPACE": "n"}, "n", False),
        ([*POOL, "--pool-namespace=p"], {"NAMESPACE": "n"}, "p", False),
        ([*POOL, "--pool-namespace="], {"NAMESPACE": "n"}, "n", False),
        ([*POOL, "--pool-namespace=default"], {}, "default", False),
    ],
    ids=["without a pool", "nothing", "NAMESPACE", "flag", "empty flag", "flag says default"],
)
def test_namespace(argv: list[str], environ: dict[str, str], namespace: str, warned: bool) -> None:
    command = read(*argv, environ=environ)
    assert command.options.namespace == namespace
    assert bool(command.warnings) is warned


@pytest.mark.parametrize(
    ("text", "expected"), [("", None), ("45s", 45.0), ("-1s", -1.0), ("0", 0.0)], ids=["empty", "seconds", "for ever", "none"]
)
def test_graceful_shutdown_timeout(text: str, expected: float | None) -> None:
    assert options(environ={"EPP_GRACEFUL_SHUTDOWN_TIMEOUT": text}).graceful_shutdown_timeout_s == expected


def test_a_wrong_graceful_shutdown_timeout() -> None:
    (problem,) = problems(environ={"EPP_GRACEFUL_SHUTDOWN_TIMEOUT": "30"})
    assert problem.startswith("EPP_GRACEFUL_SHUTDOWN_TIMEOUT: '30' is not a duration")


def test_pod_name() -> None:
    assert options(environ={"POD_NAME": "epp-1-x"}).pod_name == "epp-1-x"


@pytest.mark.parametrize(
    ("argv", "warnings"),
    [
        (["--lease-name=x"], ("--lease-name has no effect without --pool-name or --endpoint-selector",)),
        (["--kubeconfig=f", *POOL], ()),
        (["--kubeconfig=f", "--endpoint=h:1"], ("--kubeconfig has no effect without --pool-name or --endpoint-selector",)),
        (["--kubeconfig="], ()),
    ],
    ids=["alone", "with a pool", "with endpoints", "empty"],
)
def test_flags_that_need_a_cluster(argv: list[str], warnings: tuple[str, ...]) -> None:
    assert read(*argv).warnings == warnings


# ── help ──


def test_help_tells_every_flag_with_its_default() -> None:
    text = " ".join(help_text().split())
    defaults = Options()
    for flag in FLAGS:
        assert f"--{flag.name} " in text
        default = getattr(defaults, flag.target, None)
        if not default or flag.kind.hint == "metric" or flag.kind.hint == "size":
            continue
        shown = (
            format_duration(default) if flag.kind.hint == "duration" else str(default).lower() if default is True else default
        )
        assert f"{flag.help} (default {shown})" in text
    assert "(default 64Mi)" in text
    assert "(default 1Gi)" in text


def test_help_is_in_groups() -> None:
    lines = help_text().splitlines()
    heads = [line for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert heads == [f"{group}:" for group in dict.fromkeys(flag.group for flag in FLAGS)]
    assert [line.split()[:3] for line in lines if line.startswith("  -v")] == [["-v,", "--v", "<int>"]]
    assert not any("(default false)" in line or "(default )" in line or "(default None)" in line for line in lines)


def test_every_flag_says_what_it_is_for() -> None:
    assert all(len(flag.help) > 5 for flag in FLAGS)
    assert len({flag.help for flag in FLAGS}) == len(FLAGS)


def test_every_option_has_a_flag() -> None:
    set_by_flags = {flag.target for flag in FLAGS} | {"metric_specs", "refresh_metrics_interval_is_given"}
    others = {"graceful_shutdown_timeout_s", "namespace", "node_name", "older_environment", "pod_name"}
    assert {f.name for f in fields(Options)} - set_by_flags == others
