"""All process options of ``epp serve`` in one frozen record, with the checks across them.

Each field is a flag; ``commands.flags`` reads the command line and the environment into it. Durations are seconds.
Source: llm-d-router: pkg/epp/server/options.go.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from epp.telemetry.decision_ring import LIMIT_BYTES

MIN_REFRESH_S = 0.05
"""Scraping faster than this is never worth its cost; llm-d-router's floor."""
MAX_TARGET_PORTS = 8
_OF_DEPLOYMENT = re.compile(r"(.+)-[a-z0-9]+-[a-z0-9]+")
"""Name of a pod: deployment, replica set, pod. Source: llm-d-router: cmd/epp/runner/runner.go."""
RETRY_JITTER = 1.2
"""As in client-go: the longest wait between two tries is that much of the retry period."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the process was started with."""

    # configuration
    config_file: str = ""
    config_text: str = ""
    pools_file: str = ""
    """Several pools, in place of the flags that concern one."""
    check_config: bool = False
    strict_config: bool = False
    print_effective_config: bool = False
    list_plugins: bool = False
    watch_config_file: bool = False
    allow_experimental_plugins: bool = True
    shadow_config_file: str = ""
    """A second configuration, which decides about the same requests and changes nothing."""
    shadow_share: float = 1.0
    """Of the requests; 0 to 1."""
    objects: tuple[str, ...] = ()
    # pool and endpoints
    endpoints: tuple[str, ...] = ()
    pool_name: str = ""
    pool_namespace: str = ""
    pool_group: str = "inference.networking.k8s.io"
    endpoint_selector: str = ""
    endpoint_target_ports: tuple[int, ...] = ()
    disable_endpoint_subset_filter: bool = False
    emit_endpoint_scores: bool = False
    hold_back_unscraped: bool = False
    hold_back_stale: bool = False
    kubeconfig: str = ""
    # listening
    bind_address: str = "0.0.0.0"
    grpc_port: int = 9002
    grpc_health_port: int = 9003
    metrics_port: int = 9090
    transport: str = "auto"
    health_checking: bool = False
    ready_file: str = ""
    grpc_max_recv_msg_size: int = 0
    """Bytes; 0 = body limit and 1 MiB."""
    grpc_max_send_msg_size: int = 0
    enable_grpc_stream_metrics: bool = False
    drain_timeout_s: float = 30.0
    max_request_body_bytes: int = 64 * 1024 * 1024
    max_buffered_bytes: int = 1024 * 1024 * 1024
    # TLS
    secure_serving: bool = True
    cert_path: str = ""
    enable_cert_reload: bool = False
    tls_min_version: str = ""
    tls_cipher_suites: tuple[str, ...] = ()
    # high availability
    ha_enable_leader_election: bool = False
    lease_name: str = ""
    leader_election_lease_duration_s: float = 15.0
    leader_election_renew_deadline_s: float = 10.0
    leader_election_retry_period_s: float = 2.0
    # model server metrics
    refresh_metrics_interval_s: float = MIN_REFRESH_S
    refresh_metrics_interval_is_given: bool = False
    metrics_staleness_threshold_s: float = 2.0
    model_server_metrics_scheme: str = "http"
    model_server_metrics_path: str = "/metrics"
    model_server_metrics_port: int = 0
    model_server_metrics_https_insecure_skip_verify: bool = True
    metric_specs: Mapping[str, str] = field(default_factory=dict)
    """The metric-name flags that were given: queued, running, kv_usage, lora, cache_info; "" disables one."""
    # own metrics, logs, traces
    refresh_prometheus_metrics_interval_s: float = 5.0
    metrics_endpoint_auth: bool | None = None
    """None = not given."""
    metrics_cert_dir: str = ""
    metrics_client_ca_file: str = ""
    enable_pprof: bool = False
    legacy_metrics: bool = True
    fairness_id_metric_label_limit: int = 1000
    explain_share: float = 0.005
    """Of the requests; 0 to 1."""
    explain_memory_bytes: int = LIMIT_BYTES
    explain_callers: tuple[tuple[str, str], ...] = ()
    """(header name, value or ``*``): which requests may ask to be explained."""
    tracing: bool = True
    verbosity: int = 2
    zap_encoder: str = "json"
    zap_stacktrace_level: str = "error"
    zap_time_encoding: str = "rfc3339nano"
    # environment only
    graceful_shutdown_timeout_s: float | None = None
    """None = ``drain_timeout_s``; negative = without limit."""
    namespace: str = "default"
    pod_name: str = ""
    node_name: str = ""
    """Where the pod runs; for the log."""
    older_environment: Mapping[str, str] = field(default_factory=dict)
    """Variables of earlier versions that change the configuration."""

    @property
    def pool(self) -> str:
        """Name of the pool; with a selector, that of the deployment of this pod, or of a pod that belongs to none."""
        if self.pool_name or not self.endpoint_selector:
            return self.pool_name or "epp"
        match = _OF_DEPLOYMENT.fullmatch(self.pod_name)
        return (match[1] if match else self.pod_name) or "epp"

    @property
    def needs_kubernetes(self) -> bool:
        """A flag asks for discovery in a cluster."""
        return bool(self.pool_name or self.endpoint_selector) and not self.endpoints


def check(options: Options) -> list[str]:
    """All that is wrong across flags, one sentence each."""
    problems = []
    problems += _of_one_pool(options)
    if options.config_file and options.config_text:
        problems.append("cannot use both --config-file and --config-text; give one of them")
    if options.watch_config_file and not options.config_file and not options.pools_file:
        problems.append("--watch-config-file needs --config-file or --pools-file: there is no file to watch")
    if options.shadow_share != 1.0 and not options.shadow_config_file:
        problems.append("--shadow-share needs --shadow-config-file: there is nothing to show requests to")
    if options.pool_name and options.endpoint_selector:
        problems.append("either pool-name or endpoint-selector must be set, not both")
    if options.endpoint_selector and not options.endpoint_target_ports:
        problems.append("--endpoint-selector needs --endpoint-target-ports, such as --endpoint-target-ports=8000")
    if options.endpoint_target_ports and not options.endpoint_selector:
        problems.append("--endpoint-target-ports has a meaning only with --endpoint-selector")
    problems += _ports(options)
    problems += _durations(options)
    if options.ha_enable_leader_election and not options.needs_kubernetes and not options.pools_file:
        problems.append("--ha-enable-leader-election needs --pool-name or --endpoint-selector: the lease lives in the cluster")
    if options.metrics_client_ca_file and not options.metrics_cert_dir:
        problems.append("--metrics-client-ca-file needs --metrics-cert-dir: client certificates exist only with TLS")
    if options.metrics_cert_dir and not options.metrics_client_ca_file and options.metrics_endpoint_auth is False:
        problems.append(
            "TLS without authentication: --metrics-cert-dir with --metrics-endpoint-auth=false needs --metrics-client-ca-file"
        )
    return problems


_KEYS_OF_POOLS = {
    "config_file": "configFile",
    "config_text": "configFile",
    "shadow_config_file": "shadowConfigFile",
    "shadow_share": "shadowShare",
    "objects": "objects",
    "endpoints": "endpoints",
    "pool_name": "name",
    "pool_namespace": "namespace",
    "pool_group": "group",
    "endpoint_selector": "endpointSelector",
    "endpoint_target_ports": "targetPorts",
}
"""Fields that concern one pool → the key of a pool in the pools file."""
_FLAG_OF = {"endpoints": "endpoint"}
"""Fields whose flag has another name."""


def _of_one_pool(options: Options) -> list[str]:
    """With a pools file, what concerns one pool stands there."""
    if not options.pools_file:
        return []
    given = [name for name in _KEYS_OF_POOLS if getattr(options, name) != getattr(Options(), name)]
    return [
        f"--{_FLAG_OF.get(name, name).replace('_', '-')} concerns one pool and cannot be used with --pools-file; "
        f"write it as {_KEYS_OF_POOLS[name]} of the pool in {options.pools_file}"
        for name in given
    ]


def _ports(options: Options) -> list[str]:
    named = {
        "--grpc-port": options.grpc_port,
        "--grpc-health-port": options.grpc_health_port,
        "--metrics-port": options.metrics_port,
    }
    problems = [f"{name}={port} is not a port; use 1 to 65535, or 0 to let the system choose"
                for name, port in named.items() if not 0 <= port <= 65535]  # fmt: skip
    used: dict[int, str] = {}
    for name, port in named.items():
        if port and port in used:
            problems.append(f"{used[port]} and {name} are both {port}; give each a port of its own")
        used.setdefault(port, name)
    ports = options.endpoint_target_ports
    if len(ports) > MAX_TARGET_PORTS:
        problems.append(f"--endpoint-target-ports has {len(ports)} ports; at most {MAX_TARGET_PORTS} are allowed")
    if len(set(ports)) != len(ports):
        problems.append("--endpoint-target-ports names a port twice")
    if any(not 1 <= port <= 65535 for port in ports):
        problems.append("--endpoint-target-ports takes ports from 1 to 65535")
    if not 0 <= options.model_server_metrics_port <= 65535:
        problems.append(f"--model-server-metrics-port={options.model_server_metrics_port} is not a port; use 1 to 65535")
    if options.model_server_metrics_port and len(ports) > 1:
        problems.append("--model-server-metrics-port is for one target port: with several, each serves its own metrics")
    return problems


def _durations(options: Options) -> list[str]:
    problems = []
    if options.drain_timeout_s < 0:
        problems.append("--drain-timeout must not be negative; 0s stops at once")
    if options.metrics_staleness_threshold_s <= 0:
        problems.append("--metrics-staleness-threshold must be positive, such as 2s")
    return problems + _election(options)


def _election(options: Options) -> list[str]:
    """A leader must give up before others may take over, and try often enough before that."""
    lease_s, deadline_s = options.leader_election_lease_duration_s, options.leader_election_renew_deadline_s
    retry_s = options.leader_election_retry_period_s
    problems = []
    if retry_s <= 0 or lease_s < 1:
        problems.append("--leader-election-retry-period must be positive, --leader-election-lease-duration at least 1s")
    if lease_s <= deadline_s:
        problems.append("--leader-election-lease-duration must be longer than --leader-election-renew-deadline: else two lead")
    if deadline_s <= retry_s * RETRY_JITTER:
        problems.append(
            f"--leader-election-renew-deadline must be longer than {RETRY_JITTER} times --leader-election-retry-period: "
            "else one failed try ends the leader"
        )
    return problems


def warnings(options: Options) -> list[str]:
    """What is accepted but deserves a word."""
    found = []
    if options.needs_kubernetes and not options.pool_namespace and options.namespace == "default":
        found.append("neither --pool-namespace nor NAMESPACE is set: the namespace is default")
    if options.endpoint_selector and not _OF_DEPLOYMENT.fullmatch(options.pod_name):
        found.append(f"POD_NAME {options.pod_name!r} is not that of a Deployment's pod: the pool is called {options.pool}")
    if options.enable_cert_reload and not options.cert_path:
        found.append("--enable-cert-reload has no effect without --cert-path")
    if not options.secure_serving and (options.tls_min_version or options.tls_cipher_suites or options.cert_path):
        found.append("TLS flags have no effect with --secure-serving=false")
    return found
