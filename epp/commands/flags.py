"""The command line of ``epp serve``: GNU syntax as Go's pflag has it, environment twins, grouped help.

``argparse`` cannot take a boolean with an optional separate value, nor ``-v3``; so flags are read here, from one table.
Precedence: flag, then ``EPP_<FLAG>``, then default. An empty value is the same as none: Helm renders such.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from epp.commands.selector import check_selector
from epp.errors import UsageError
from epp.framework.params import format_duration, parse_duration, parse_quantity
from epp.options import MIN_REFRESH_S, Options, check, warnings

_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})
_TLS_VERSIONS = ("VersionTLS10", "VersionTLS11", "VersionTLS12", "VersionTLS13")
_TIME_ENCODINGS = ("epoch", "millis", "nano", "iso8601", "rfc3339", "rfc3339nano")


@dataclass(frozen=True, slots=True)
class Kind:
    """How a flag's text becomes a value."""

    hint: str
    """Shown in help and errors."""
    read: Callable[[str], Any]
    """Raises ValueError."""


def _read_bool(text: str) -> bool:
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError("use true or false")


def _read_int(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("use a whole number") from None


def _read_ports(text: str) -> tuple[int, ...]:
    return tuple(_read_int(part.strip()) for part in text.split(",") if part.strip())


def _read_words(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _read_duration(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        hint = f"; did you mean {text}ms or {text}s?" if text.isdigit() else ""
        raise ValueError(f"{error}{hint}") from None


def _read_bytes(text: str) -> int:
    size = parse_quantity(text.removesuffix("B") if text[-2:-1].isalnum() else text)
    if size < 0:
        raise ValueError("must not be negative")
    return size


def _read_spec(text: str) -> str:
    quoted = len(text) >= 2 and text[0] == text[-1] == '"'
    return text[1:-1] if quoted else text


def _one_of(*values: str) -> Kind:
    def read(text: str) -> str:
        if text not in values:
            raise ValueError(f"use one of {', '.join(values)}")
        return text

    return Kind("|".join(values), read)


STRING = Kind("text", str)
BOOL = Kind("bool", _read_bool)
INT = Kind("int", _read_int)
PORTS = Kind("ports", _read_ports)
WORDS = Kind("list", _read_words)
DURATION = Kind("duration", _read_duration)
BYTES = Kind("size", _read_bytes)
SPEC = Kind("metric", _read_spec)


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag."""

    name: str
    group: str
    help: str
    kind: Kind = STRING
    field: str = ""
    """Field of Options; derived from the name if empty."""
    repeats: bool = False
    """May be given several times; values are gathered."""
    kubernetes: bool = False
    """Only has a meaning with discovery in a cluster."""
    note: str = ""
    """Says so when the flag is given: accepted without effect."""

    @property
    def env(self) -> str:
        """Its environment variable."""
        return "EPP_" + self.name.upper().replace("-", "_")


_CONFIG, _POOL, _LISTEN, _TLS = "Configuration", "Endpoints", "Listening", "TLS"
_SCRAPE, _OBSERVE, _LOG, _HA = "Model server metrics", "Own metrics and traces", "Logging", "High availability"

FLAGS: tuple[Flag, ...] = (
    Flag("config-file", _CONFIG, "EndpointPickerConfig to use; without one a built-in default"),
    Flag("config-text", _CONFIG, "the document itself"),
    Flag("check-config", _CONFIG, "check the configuration, print what was found, and exit", BOOL),
    Flag("strict-config", _CONFIG, "warnings in the configuration are errors", BOOL),
    Flag("print-effective-config", _CONFIG, "print the completed configuration and exit", BOOL),
    Flag("list-plugins", _CONFIG, "print all plugin types and exit", BOOL),
    Flag("watch-config-file", _CONFIG, "use changes of --config-file", BOOL, note="a changed file is used after a restart"),
    Flag("allow-experimental-plugins", _CONFIG, "allow plugin types that are alpha upstream", BOOL),
    Flag("objects", _CONFIG, "YAML file with InferenceObjectives and InferenceModelRewrites; watched; repeatable", repeats=True),
    Flag("endpoint", _POOL, "HOST:PORT[,label=value...] of a model server; repeatable", field="endpoints", repeats=True),
    Flag("hold-back-unscraped", _POOL, "an endpoint is no candidate before its first good scrape", BOOL),
    Flag("hold-back-stale", _POOL, "one with metrics older than --metrics-staleness-threshold is no candidate, unless all are", BOOL),
    Flag("disable-endpoint-subset-filter", _POOL, "ignore the subset hint of the data plane", BOOL),
    Flag("emit-endpoint-scores", _POOL, "send the scores of all candidates as dynamic metadata", BOOL),
    Flag("pool-name", _POOL, "InferencePool to serve", kubernetes=True),
    Flag("pool-namespace", _POOL, "its namespace (default: $NAMESPACE, then default)"),
    Flag("pool-group", _POOL, "its API group", _one_of("inference.networking.k8s.io", "inference.networking.x-k8s.io")),
    Flag("endpoint-selector", _POOL, "label selector of pods to serve, instead of a pool", kubernetes=True),
    Flag("endpoint-target-ports", _POOL, "their ports", PORTS),
    Flag("kubeconfig", _POOL, "for running outside the cluster", kubernetes=True),
    Flag("bind-address", _LISTEN, "address to listen on"),
    Flag("grpc-port", _LISTEN, "ext_proc; 0 = chosen by the system", INT),
    Flag("grpc-health-port", _LISTEN, "gRPC health, always plaintext", INT),
    Flag("metrics-port", _LISTEN, "Prometheus, /healthz, /readyz, /debug", INT),
    Flag("ready-file", _LISTEN, "file that receives pid and ports as JSON once the process serves"),
    Flag("transport", _LISTEN, "what moves the bytes: auto takes native where it is installed", _one_of("auto", "grpcio", "native")),
    Flag("health-checking", _LISTEN, "health on the ext_proc port, which is always there", BOOL),
    Flag("max-request-body-bytes", _LISTEN, "longest request body; 413 above; 0 = no limit", BYTES),
    Flag("max-buffered-bytes", _LISTEN, "all request bodies together; 503 above; 0 = no limit", BYTES),
    Flag("grpc-max-recv-msg-size", _LISTEN, "longest message (default: body limit and 1 MiB)", BYTES),
    Flag("grpc-max-send-msg-size", _LISTEN, "longest message (default: no limit)", BYTES),
    Flag("drain-timeout", _LISTEN, "after SIGTERM new streams are served that long", DURATION, "drain_timeout_s"),
    Flag("secure-serving", _TLS, "TLS on the ext_proc port", BOOL),
    Flag("cert-path", _TLS, "directory with tls.crt and tls.key (default: self-signed)"),
    Flag("enable-cert-reload", _TLS, "watch that directory", BOOL),
    Flag("tls-min-version", _TLS, "oldest TLS version", _one_of(*_TLS_VERSIONS)),
    Flag("tls-cipher-suites", _TLS, "for TLS 1.2 and older, by Go names", WORDS),
    Flag("refresh-metrics-interval", _SCRAPE, "time between two scrapes of an endpoint", DURATION, "refresh_metrics_interval_s"),
    Flag("metrics-staleness-threshold", _SCRAPE, "age up to which metrics count as fresh in the pool's metrics", DURATION, "metrics_staleness_threshold_s"),
    Flag("model-server-metrics-scheme", _SCRAPE, "scheme of the metrics page", _one_of("http", "https")),
    Flag("model-server-metrics-path", _SCRAPE, "its path"),
    Flag("model-server-metrics-port", _SCRAPE, "its port; 0 = the endpoint's", INT),
    Flag("model-server-metrics-https-insecure-skip-verify", _SCRAPE, "do not verify its certificate", BOOL),
    Flag("total-queued-requests-metric", _SCRAPE, "metric of the default engine", SPEC, "queued"),
    Flag("total-running-requests-metric", _SCRAPE, "metric of the default engine", SPEC, "running"),
    Flag("kv-cache-usage-percentage-metric", _SCRAPE, "metric of the default engine", SPEC, "kv_usage"),
    Flag("lora-info-metric", _SCRAPE, "metric of the default engine", SPEC, "lora"),
    Flag("cache-info-metric", _SCRAPE, "metric of the default engine", SPEC, "cache_info"),
    Flag("refresh-prometheus-metrics-interval", _OBSERVE, "pool metrics are computed when scraped", DURATION, "refresh_prometheus_metrics_interval_s"),
    Flag("metrics-endpoint-auth", _OBSERVE, "bearer tokens on the metrics port (default: only with a cluster)", BOOL),
    Flag("metrics-cert-dir", _OBSERVE, "TLS on the metrics port"),
    Flag("metrics-client-ca-file", _OBSERVE, "require client certificates there"),
    Flag("enable-pprof", _OBSERVE, "/debug/pprof", BOOL),
    Flag("legacy-metrics", _OBSERVE, "older metric names too", BOOL),
    Flag("enable-grpc-stream-metrics", _OBSERVE, "extproc_* metrics", BOOL),
    Flag("fairness-id-metric-label-limit", _OBSERVE, "distinct fairness ids in metrics", INT),
    Flag("tracing", _OBSERVE, "OpenTelemetry; nothing is exported by this version", BOOL),
    Flag("v", _LOG, "verbosity: 2 default, 3 a line per request, 4 decisions, 5 everything", INT, "verbosity"),
    Flag("zap-log-level", _LOG, "debug, info, error, panic or a verbosity"),
    Flag("zap-encoder", _LOG, "form of a record", _one_of("json", "console")),
    Flag("zap-stacktrace-level", _LOG, "stack traces from this level up", _one_of("info", "error", "panic")),
    Flag("zap-time-encoding", _LOG, "form of a time", _one_of(*_TIME_ENCODINGS)),
    Flag("zap-devel", _LOG, "accepted for old charts", BOOL, note="it has no effect"),
    Flag("ha-enable-leader-election", _HA, "only the leader is ready", BOOL, kubernetes=True),
    Flag("lease-name", _HA, "name of the lease", kubernetes=True),
    Flag("leader-election-lease-duration", _HA, "", DURATION, "leader_election_lease_duration_s", kubernetes=True),
    Flag("leader-election-renew-deadline", _HA, "", DURATION, "leader_election_renew_deadline_s", kubernetes=True),
    Flag("leader-election-retry-period", _HA, "", DURATION, "leader_election_retry_period_s", kubernetes=True),
)  # fmt: skip

_BY_NAME = {flag.name: flag for flag in FLAGS}
_LEVELS = {"debug": 4, "info": 2, "error": 0, "panic": 0}


@dataclass(frozen=True, slots=True)
class CommandLine:
    """What a command line asks for."""

    options: Options
    warnings: tuple[str, ...]
    given: Mapping[str, str]
    """Flags that were given, by name, for the log."""
    action: str = ""
    """``help`` or ``version`` instead of serving."""


def parse(argv: Sequence[str], environ: Mapping[str, str]) -> CommandLine:
    """Read flags and environment.

    Raises:
        UsageError: with all problems.
    """
    reader = _Tokens(argv)
    if reader.action:
        return CommandLine(Options(), (), {}, reader.action)
    problems, notes = reader.problems, reader.warnings
    texts = {flag.name: [environ[flag.env]] for flag in FLAGS if environ.get(flag.env)}
    texts.update(reader.texts)
    values: dict[str, Any] = {}
    specs: dict[str, str] = {}
    for name, given in texts.items():
        _read_flag(_BY_NAME[name], given, values, specs, problems, notes)
    _environment(values, environ, problems, notes)
    if specs:
        values["metric_specs"] = specs
    options = Options(**values)
    problems += check(options)
    notes += warnings(options)
    if problems:
        raise UsageError(problems)
    return CommandLine(options, tuple(notes), {name: ",".join(given) for name, given in texts.items()})


def _read_flag(
    flag: Flag,
    given: list[str],
    values: dict[str, Any],
    specs: dict[str, str],
    problems: list[str],
    notes: list[str],
) -> None:
    texts = [text for text in given if text] if flag.repeats else given[-1:]
    if flag.note and texts:
        notes.append(f"--{flag.name}: {flag.note}")
    if flag.kind is SPEC:
        specs[flag.field] = _read_spec(texts[-1])
        notes.append(f"--{flag.name} sets a metric of the default engine; engineConfigs in the configuration say it better")
        return
    if not texts or not texts[-1] or flag.name in ("zap-devel", "zap-log-level"):
        if flag.name == "zap-log-level" and texts and texts[-1]:
            _zap_level(texts[-1], values, problems)
        return
    try:
        read = [flag.kind.read(text) for text in texts]
    except ValueError as error:
        problems.append(f"invalid value {json.dumps(texts[-1])} for --{flag.name}: {error}")
        return
    values[flag.field or flag.name.replace("-", "_")] = tuple(read) if flag.repeats else read[-1]


def _zap_level(text: str, values: dict[str, Any], problems: list[str]) -> None:
    if text in _LEVELS or (text.isdigit() and int(text) > 0):
        values.setdefault("verbosity", _LEVELS.get(text) if text in _LEVELS else int(text))
    else:
        problems.append(f"invalid value {json.dumps(text)} for --zap-log-level: use {', '.join(_LEVELS)} or a number above 0")


def _environment(values: dict[str, Any], environ: Mapping[str, str], problems: list[str], notes: list[str]) -> None:
    """Variables that are no twins of flags, and values that depend on each other."""
    if values.get("verbosity", 0) < 0:
        values["verbosity"] = 2
    interval = values.get("refresh_metrics_interval_s")
    if interval is not None and interval <= 0:
        problems.append("--refresh-metrics-interval must be positive, such as 50ms")
    elif interval is not None and interval < MIN_REFRESH_S:
        notes.append(f"--refresh-metrics-interval {format_duration(interval)} is raised to {format_duration(MIN_REFRESH_S)}")
        values["refresh_metrics_interval_s"] = MIN_REFRESH_S
    if values.get("endpoint_selector"):
        problems += [f"--endpoint-selector: {text}" for text in check_selector(values["endpoint_selector"])]
    values["namespace"] = values.get("pool_namespace") or environ.get("NAMESPACE") or "default"
    values["pod_name"] = environ.get("POD_NAME", "")
    grace = environ.get("EPP_GRACEFUL_SHUTDOWN_TIMEOUT")
    if grace:
        try:
            values["graceful_shutdown_timeout_s"] = parse_duration(grace)
        except ValueError as error:
            problems.append(f"EPP_GRACEFUL_SHUTDOWN_TIMEOUT: {error}")


class _Tokens:
    """Splits a command line into flags and texts."""

    def __init__(self, argv: Sequence[str]) -> None:
        self.texts: dict[str, list[str]] = {}
        self.problems: list[str] = []
        self.warnings: list[str] = []
        self.action = ""
        rest = list(argv)
        while rest and not self.action:
            token = rest.pop(0)
            if token == "--":
                self.problems += [f"unexpected argument {argument!r}; flags begin with --" for argument in rest]
                return
            self._token(token, rest)

    def _token(self, token: str, rest: list[str]) -> None:
        if token in ("-h", "--help"):
            self.action = "help"
        elif token == "--version":
            self.action = "version"
        elif token.startswith("-v") and not token.startswith("--"):
            self._value("v", token[2:].removeprefix("=") if len(token) > 2 else None, rest)
        elif token.startswith("--"):
            name, sign, text = token[2:].partition("=")
            self._long(name, text if sign else None, rest)
        elif token.startswith("-") and len(token) > 2:
            self.problems.append(f"unknown flag: {token}; use -{token}, with two dashes")
        else:
            self.problems.append(f"unexpected argument {token!r}; flags begin with --")

    def _long(self, name: str, text: str | None, rest: list[str]) -> None:
        flag = _BY_NAME.get(name)
        if flag is None and name.startswith("no-") and text is None:
            negated = _BY_NAME.get(name[3:])
            if negated is not None and negated.kind is BOOL:
                self._add(negated.name, "false")
                return
        if flag is None:
            near = difflib.get_close_matches(name, _BY_NAME, n=1, cutoff=0.6)
            hint = f"; did you mean --{near[0]}?" if near else "; --help lists all flags"
            self.problems.append(f"unknown flag: --{name}{hint}")
            if text is None and rest and not rest[0].startswith("-"):
                rest.pop(0)
        elif flag.kind is BOOL and text is None:
            self._bool(flag, rest)
        else:
            self._value(name, text, rest)

    def _bool(self, flag: Flag, rest: list[str]) -> None:
        if rest and rest[0] in _TRUE | _FALSE:
            text = rest.pop(0)
            self.warnings.append(f"--{flag.name} {text}: write --{flag.name}={text}; Go programs ignore a separate value")
            self._add(flag.name, text)
        else:
            self._add(flag.name, "true")

    def _value(self, name: str, text: str | None, rest: list[str]) -> None:
        if text is None:
            if not rest:
                self.problems.append(f"flag needs a value: --{name}")
                return
            text = rest.pop(0)
        self._add(name, text)

    def _add(self, name: str, text: str) -> None:
        if _BY_NAME[name].repeats:
            self.texts.setdefault(name, []).append(text)
        else:
            self.texts[name] = [text]


def help_text() -> str:
    """All flags by group."""
    defaults = {f.name: getattr(Options(), f.name) for f in fields(Options)}
    lines = ["usage: epp serve [flags]", "", "Serve as Envoy's external processor. Each flag is also read from EPP_<FLAG>.", ""]
    for group in dict.fromkeys(flag.group for flag in FLAGS):
        lines.append(f"{group}:")
        for flag in (f for f in FLAGS if f.group == group):
            left = f"  {'-v, ' if flag.name == 'v' else ''}--{flag.name}{'' if flag.kind is BOOL else f' <{flag.kind.hint}>'}"
            lines.append(f"{left:<52} {flag.help}{_default(flag, defaults)}".rstrip())
        lines.append("")
    lines.append("  -h, --help, --version")
    return "\n".join(lines)


def _default(flag: Flag, defaults: Mapping[str, Any]) -> str:
    value = defaults.get(flag.field or flag.name.replace("-", "_"))
    if value in (None, "", (), False) or flag.kind is SPEC:
        return ""
    if flag.kind is DURATION:
        value = format_duration(value)
    return f" (default {str(value).lower() if value is True else value})"
