"""Checks across options: all problems at once, each with what to do."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from epp.process.options import Options, check, warnings

SELECTOR: dict[str, Any] = {"endpoint_selector": "app=x", "endpoint_target_ports": (8000,)}
POOL: dict[str, Any] = {"pool_name": "a"}


def test_the_defaults_are_fine() -> None:
    assert check(Options()) == []
    assert warnings(Options()) == []


@pytest.mark.parametrize(
    ("given", "pool", "is_told"),
    [
        ({}, "epp", False),
        (POOL, "a", False),
        ({**SELECTOR, "pod_name": "chat-epp-6b8f9c-x2x9z"}, "chat-epp", False),
        ({**SELECTOR, "pod_name": "epp-0"}, "epp-0", True),
        (SELECTOR, "epp", True),
    ],
)
def test_the_name_of_the_pool(given: dict[str, Any], pool: str, is_told: bool) -> None:
    options = Options(**given, namespace="n")
    assert options.pool == pool
    assert any("POD_NAME" in warning for warning in warnings(options)) == is_told


def test_what_is_on_by_default() -> None:
    switched_on = {f.name for f in fields(Options) if getattr(Options(), f.name) is True}
    assert switched_on == {
        "allow_experimental_plugins",
        "legacy_metrics",
        "model_server_metrics_https_insecure_skip_verify",
        "secure_serving",
        "tracing",
    }


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"config_file": "f", "config_text": "t"}, ["cannot use both --config-file and --config-text"]),
        ({"watch_config_file": True}, ["--watch-config-file needs --config-file"]),
        ({"watch_config_file": True, "pools_file": "p"}, []),
        ({"ha_enable_leader_election": True, "pools_file": "p"}, []),
        (
            {"pools_file": "p", "config_file": "f", "endpoints": ("a:1",), "pool_name": "n", "objects": ("o",)},
            [
                "--config-file concerns one pool and cannot be used with --pools-file; write it as configFile of the pool in p",
                "--objects concerns one pool",
                "--endpoint concerns one pool and cannot be used with --pools-file; write it as endpoints",
                "--pool-name concerns one pool and cannot be used with --pools-file; write it as name",
            ],
        ),
        ({**POOL, **SELECTOR}, ["either pool-name or endpoint-selector must be set, not both"]),
        ({"endpoint_selector": "app=x"}, ["--endpoint-selector needs --endpoint-target-ports"]),
        ({"endpoint_target_ports": (1,)}, ["only with --endpoint-selector"]),
        ({**SELECTOR, "endpoint_target_ports": tuple(range(1, 10))}, ["has 9 ports; at most 8"]),
        ({**SELECTOR, "endpoint_target_ports": (1, 1)}, ["names a port twice"]),
        ({**SELECTOR, "endpoint_target_ports": (0,)}, ["ports from 1 to 65535"]),
        ({**SELECTOR, "endpoint_target_ports": (65536,)}, ["ports from 1 to 65535"]),
        ({"grpc_port": -1}, ["--grpc-port=-1 is not a port"]),
        ({"metrics_port": 65536}, ["--metrics-port=65536 is not a port"]),
        ({"metrics_port": 9002}, ["--grpc-port and --metrics-port are both 9002"]),
        ({"grpc_port": 1, "grpc_health_port": 1, "metrics_port": 1}, ["--grpc-port and --grpc", "--grpc-port and --metrics"]),
        ({"grpc_port": 0, "grpc_health_port": 0, "metrics_port": 0}, []),
        ({"model_server_metrics_port": -1}, ["--model-server-metrics-port=-1"]),
        ({"model_server_metrics_port": 9000, **SELECTOR}, []),
        (
            {"model_server_metrics_port": 9000, **SELECTOR, "endpoint_target_ports": (1, 2)},
            ["--model-server-metrics-port is for one target port"],
        ),
        ({"metrics_client_ca_file": "f"}, ["--metrics-client-ca-file needs --metrics-cert-dir"]),
        ({"metrics_client_ca_file": "f", "metrics_cert_dir": "d"}, []),
        ({"metrics_cert_dir": "d", "metrics_endpoint_auth": False}, ["TLS without authentication"]),
        ({"metrics_cert_dir": "d", "metrics_endpoint_auth": None}, []),
        ({"metrics_cert_dir": "d", "metrics_endpoint_auth": False, "metrics_client_ca_file": "f"}, []),
        ({"leader_election_renew_deadline_s": 15.0}, ["--leader-election-lease-duration must be longer than"]),
        ({"leader_election_retry_period_s": 9.0}, ["longer than 1.2 times --leader-election-retry-period"]),
        ({"leader_election_retry_period_s": 0.0}, ["--leader-election-retry-period must be positive"]),
        ({"drain_timeout_s": -1.0}, ["--drain-timeout must not be negative"]),
        ({"drain_timeout_s": 0.0}, []),
        ({"metrics_staleness_threshold_s": 0.0}, ["--metrics-staleness-threshold must be positive"]),
        ({"ha_enable_leader_election": True}, ["--ha-enable-leader-election needs --pool-name"]),
        ({"ha_enable_leader_election": True, "endpoints": ("h:1",), **POOL}, ["--ha-enable-leader-election needs"]),
        ({"ha_enable_leader_election": True, **POOL}, []),
        ({"config_file": "f", "config_text": "t", "grpc_port": -1}, ["cannot use both", "--grpc-port=-1"]),
    ],
    ids=str,
)
def test_problems(given: dict[str, Any], words: list[str]) -> None:
    found = check(Options(**given))
    assert len(found) == len(words)
    assert all(word in problem for word, problem in zip(words, found, strict=True)), found


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"enable_cert_reload": True}, ["--enable-cert-reload has no effect"]),
        ({"enable_cert_reload": True, "cert_path": "d"}, []),
        ({"secure_serving": False}, []),
        ({"secure_serving": False, "tls_min_version": "VersionTLS12"}, ["TLS flags have no effect"]),
        ({"secure_serving": False, "tls_cipher_suites": ("X",)}, ["TLS flags have no effect"]),
        ({"secure_serving": False, "cert_path": "d"}, ["TLS flags have no effect"]),
        (POOL, ["the namespace is default"]),
        ({**POOL, "namespace": "n"}, []),
        ({**POOL, "pool_namespace": "default"}, []),
    ],
    ids=str,
)
def test_warnings(given: dict[str, Any], words: list[str]) -> None:
    found = warnings(Options(**given))
    assert len(found) == len(words)
    assert all(word in warning for word, warning in zip(words, found, strict=True))


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, False), (POOL, True), (SELECTOR, True), ({**POOL, "endpoints": ("h:1",)}, False), ({"endpoints": ("h:1",)}, False)],
    ids=["nothing", "a pool", "a selector", "a pool's name beside endpoints", "endpoints"],
)
def test_discovery_in_a_cluster(given: dict[str, Any], expected: bool) -> None:
    assert Options(**given).needs_kubernetes is expected


def test_units_end_names() -> None:
    times = [f for f in fields(Options) if "timeout" in f.name or "interval" in f.name or "duration" in f.name]
    seconds = [f.name for f in times if f.type != "bool"]
    assert seconds
    assert all(name.endswith("_s") for name in seconds)
