"""All flags of ``epp serve`` in one table, and how the text of each becomes a value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from epp.framework.params import parse_duration, parse_quantity

TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})
_TLS_VERSIONS = ("VersionTLS10", "VersionTLS11", "VersionTLS12", "VersionTLS13")
_LEVELS = {"debug": 4, "info": 2, "error": -1, "panic": -1}
"""Verbosity of each level of zap."""
_TIME_ENCODINGS = ("epoch", "millis", "nano", "iso8601", "rfc3339", "rfc3339nano")


@dataclass(frozen=True, slots=True)
class Kind:
    """How a flag's text becomes a value."""

    hint: str
    """Shown in help and errors."""
    read: Callable[[str], Any]
    """Raises ValueError."""


def _read_bool(text: str) -> bool:
    if text in TRUE:
        return True
    if text in FALSE:
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
    size = parse_quantity(text.removesuffix("B"))
    if size < 0:
        raise ValueError("must not be negative")
    return size


def _read_share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        raise ValueError("use a number from 0 to 1") from None
    if not 0 <= share <= 1:
        raise ValueError("use a number from 0 to 1")
    return share


def _read_header_value(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name.strip() or not value:
        raise ValueError("use HEADER=VALUE, or HEADER=* for any value")
    return name.strip().lower(), value


def _read_spec(text: str) -> str:
    quoted = len(text) >= 2 and text[0] == text[-1] == '"'
    return text[1:-1] if quoted else text


def _read_level(text: str) -> int:
    if text in _LEVELS:
        return _LEVELS[text]
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise ValueError(f"use {', '.join(_LEVELS)} or a number above 0")


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
SHARE = Kind("share", _read_share)
HEADER_VALUE = Kind("header=value", _read_header_value)
BYTES = Kind("size", _read_bytes)
SPEC = Kind("metric", _read_spec)
SELECTOR = Kind("selector", str)
LEVEL = Kind("level", _read_level)


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag."""

    name: str
    group: str
    help: str
    kind: Kind = STRING
    field: str = ""
    """Field of Options, or key of its ``metric_specs``; derived from the name if empty."""
    repeats: bool = False
    """May be given several times; values are gathered."""
    kubernetes: bool = False
    """Only has a meaning with discovery in a cluster."""
    note: str = ""
    """Said when the flag is given: why it has no effect."""

    @property
    def target(self) -> str:
        """The name of its value."""
        return self.field or self.name.replace("-", "_")

    @property
    def env(self) -> str:
        """Its environment variable."""
        return "EPP_" + self.name.upper().replace("-", "_")


_CONFIG, _POOL, _LISTEN, _TLS = "Configuration", "Endpoints", "Listening", "TLS"
_SCRAPE, _OBSERVE, _LOG, _HA = "Model server metrics", "Own metrics and traces", "Logging", "High availability"

FLAGS: tuple[Flag, ...] = (
    Flag("config-file", _CONFIG, "EndpointPickerConfig to use; without one a built-in default"),
    Flag("config-text", _CONFIG, "the document itself"),
    Flag("pools-file", _CONFIG, "EndpointPickerPools to serve, in place of the flags that concern one pool"),
    Flag("check-config", _CONFIG, "check the configuration, print what was found, and exit", BOOL),
    Flag("strict-config", _CONFIG, "warnings in the configuration are errors", BOOL),
    Flag("print-effective-config", _CONFIG, "print the completed configuration and exit", BOOL),
    Flag("list-plugins", _CONFIG, "print all plugin types and exit", BOOL),
    Flag("watch-config-file", _CONFIG, "follow --config-file, or --pools-file and what it names: a changed document takes the place of the running one, if it can", BOOL),
    Flag("shadow-config-file", _CONFIG, "a second configuration that decides about the same requests and changes nothing; epp shadow compares"),
    Flag("shadow-share", _CONFIG, "share of the requests that it is shown", SHARE),
    Flag("allow-experimental-plugins", _CONFIG, "allow plugin types that are alpha upstream", BOOL),
    Flag("objects", _CONFIG, "YAML file with InferenceObjectives and InferenceModelRewrites; watched; repeatable", repeats=True),
    Flag("endpoint", _POOL, "HOST:PORT[,label=value...] of a model server; repeatable", field="endpoints", repeats=True),
    Flag("hold-back-unscraped", _POOL, "an endpoint is no candidate before its first good scrape", BOOL),
    Flag("hold-back-stale", _POOL, "one with metrics older than --metrics-staleness-threshold is no candidate, unless all are", BOOL),
    Flag("disable-endpoint-subset-filter", _POOL, "ignore the subset hint of the data plane", BOOL),
    Flag("emit-endpoint-scores", _POOL, "send the scores of all candidates as dynamic metadata", BOOL),
    Flag("pool-name", _POOL, "InferencePool to serve"),
    Flag("pool-namespace", _POOL, "its namespace (default: $NAMESPACE, then default)"),
    Flag("pool-group", _POOL, "its API group", _one_of("inference.networking.k8s.io", "inference.networking.x-k8s.io")),
    Flag("endpoint-selector", _POOL, "label selector of pods to serve, instead of a pool", SELECTOR),
    Flag("endpoint-target-ports", _POOL, "their ports", PORTS),
    Flag("kubeconfig", _POOL, "for running outside the cluster", kubernetes=True),
    Flag("bind-address", _LISTEN, "address to listen on"),
    Flag("grpc-port", _LISTEN, "ext_proc; 0 = chosen by the system, as for the other ports", INT),
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
    Flag("tls-min-version", _TLS, "oldest TLS version (default: the library's)", _one_of(*_TLS_VERSIONS)),
    Flag("tls-cipher-suites", _TLS, "for TLS 1.2 and older, by Go names", WORDS),
    Flag("refresh-metrics-interval", _SCRAPE, "time between two scrapes of an endpoint", DURATION, "refresh_metrics_interval_s"),
    Flag("metrics-staleness-threshold", _SCRAPE, "age up to which metrics count as fresh in the pool's metrics", DURATION, "metrics_staleness_threshold_s"),
    Flag("model-server-metrics-scheme", _SCRAPE, "scheme of the metrics page", _one_of("http", "https")),
    Flag("model-server-metrics-path", _SCRAPE, "its path"),
    Flag("model-server-metrics-port", _SCRAPE, "its port; 0 = the endpoint's", INT),
    Flag("model-server-metrics-https-insecure-skip-verify", _SCRAPE, "do not verify its certificate", BOOL),
    Flag("total-queued-requests-metric", _SCRAPE, "waiting requests of the default engine, vllm:num_requests_waiting for vLLM", SPEC, "queued"),
    Flag("total-running-requests-metric", _SCRAPE, "its running requests, vllm:num_requests_running for vLLM", SPEC, "running"),
    Flag("kv-cache-usage-percentage-metric", _SCRAPE, "its KV cache usage, vllm:kv_cache_usage_perc for vLLM", SPEC, "kv_usage"),
    Flag("lora-info-metric", _SCRAPE, "its LoRA adapters, vllm:lora_requests_info for vLLM", SPEC, "lora"),
    Flag("cache-info-metric", _SCRAPE, "its cache layout, vllm:cache_config_info for vLLM", SPEC, "cache_info"),
    Flag("refresh-prometheus-metrics-interval", _OBSERVE, "pool metrics are computed when scraped", DURATION, "refresh_prometheus_metrics_interval_s"),
    Flag("metrics-endpoint-auth", _OBSERVE, "bearer tokens on the metrics port (default: only with a cluster)", BOOL),
    Flag("metrics-cert-dir", _OBSERVE, "TLS on the metrics port"),
    Flag("metrics-client-ca-file", _OBSERVE, "require client certificates there"),
    Flag("enable-pprof", _OBSERVE, "/debug/pprof", BOOL),
    Flag("legacy-metrics", _OBSERVE, "older metric names too", BOOL),
    Flag("enable-grpc-stream-metrics", _OBSERVE, "extproc_* metrics", BOOL),
    Flag("fairness-id-metric-label-limit", _OBSERVE, "distinct fairness ids in metrics", INT),
    Flag("explain-share", _OBSERVE, "share of the requests whose decision is kept for /debug/decisions; refusals and errors always are", SHARE),
    Flag("explain-memory", _OBSERVE, "for kept decisions; the oldest go; 0 = none are kept", BYTES, "explain_memory_bytes"),
    Flag("explain-callers", _OBSERVE, "requests with this header may ask with x-epp-explain: 1; the gateway must set it; repeatable", HEADER_VALUE, repeats=True),
    Flag("tracing", _OBSERVE, "OpenTelemetry, where OTEL_TRACES_EXPORTER or an OTLP endpoint is set", BOOL),
    Flag("v", _LOG, "verbosity: 2 default, 3 a line per request, 4 decisions, 5 everything", INT, "verbosity"),
    Flag("zap-log-level", _LOG, "debug, info, error, panic or a verbosity; -v wins", LEVEL, "zap_verbosity"),
    Flag("zap-encoder", _LOG, "form of a record", _one_of("json", "console")),
    Flag("zap-stacktrace-level", _LOG, "stack traces from this level up", _one_of("info", "error", "panic")),
    Flag("zap-time-encoding", _LOG, "form of a time", _one_of(*_TIME_ENCODINGS)),
    Flag("zap-devel", _LOG, "accepted for old charts", BOOL, note="it has no effect; records have one form"),
    Flag("ha-enable-leader-election", _HA, "only the leader is ready", BOOL, kubernetes=True),
    Flag("lease-name", _HA, "name of the lease", kubernetes=True),
    Flag("leader-election-lease-duration", _HA, "how long others wait for a leader that is silent", DURATION, "leader_election_lease_duration_s", kubernetes=True),
    Flag("leader-election-renew-deadline", _HA, "how long the leader tries to renew before it gives up", DURATION, "leader_election_renew_deadline_s", kubernetes=True),
    Flag("leader-election-retry-period", _HA, "time between two tries", DURATION, "leader_election_retry_period_s", kubernetes=True),
)  # fmt: skip
