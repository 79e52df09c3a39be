"""Findings about how the picker is deployed: replicas and election, resources, probes, what it serves, restarts."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from epp.datalayer.objects import POOL_GROUP
from epp.doctor.catalogue import finding
from epp.doctor.cluster.view import ClusterView, name_of, some
from epp.doctor.cluster.workload import Workload
from epp.doctor.documents import mapping, mappings, number
from epp.errors import Finding
from epp.framework.params import format_duration, parse_duration, parse_quantity
from epp.process.options import Options

_BASE_BYTES = 256 * 1024 * 1024
"""What a picker takes beside request bodies, with a margin."""
_SLACK_S = 60.0
"""How much clocks may differ before a lease counts as given up."""
_DEFAULT_GRACE_S = 30
"""Of pods that name none. Source: Kubernetes API reference, PodSpec."""


def check_deployment(view: ClusterView, workload: Workload, now: datetime) -> list[Finding]:
    """All findings."""
    found = [*_serves(view, workload), *_replicas(view, workload), *_resources(view, workload), *_stop(view, workload)]
    found += [*_probe(view, workload), *_mounted(view, workload), *_restarts(view)]
    if elects(workload):
        found += [*_rollout(view, workload), *_lease(view, now)]
    return found


def elects(workload: Workload) -> bool:
    """It takes part in a leader election."""
    return workload.is_on("ha-enable-leader-election")


def authenticates(workload: Workload) -> bool:
    """It asks the API server who reads its metrics port."""
    return workload.is_on("metrics-endpoint-auth", default=True) and not workload.flag("metrics-client-ca-file")


def _serves(view: ClusterView, workload: Workload) -> Iterator[Finding]:
    name, group = workload.flag("pool-name"), workload.flag("pool-group", POOL_GROUP)
    namespace = workload.flag("pool-namespace") or workload.variable("NAMESPACE") or view.namespace
    if name and (name, namespace, group) != (view.name, view.namespace, view.group):
        shown = f"{namespace}/{name} of {group}"
        message = f"it is behind this pool's Service and serves InferencePool {shown}"
        fix = "correct --pool-name, --pool-namespace, --pool-group or the pool's endpointPickerRef"
        yield finding("KUB079", view.source, workload.title, message, fix, value=shown)


def _replicas(view: ClusterView, workload: Workload) -> Iterator[Finding]:
    if workload.replicas > 1 and not elects(workload):
        message = f"{workload.replicas} replicas decide side by side, each with its own queues, counts and prefix index"
        fix = "where that matters, start them with --ha-enable-leader-election, or share the index in Redis"
        yield finding("KUB070", view.source, workload.title, message, fix, value=workload.replicas)


def _rollout(view: ClusterView, workload: Workload) -> Iterator[Finding]:
    strategy = workload.strategy
    if workload.kind != "Deployment" or strategy.get("type", "RollingUpdate") != "RollingUpdate":
        return
    allowed = mapping(strategy.get("rollingUpdate")).get("maxUnavailable", "25%")
    share = str(allowed).removesuffix("%")
    most = number(share, 0) * workload.replicas // 100 if str(allowed).endswith("%") else number(allowed, 0)
    if most < workload.replicas:
        message = "a rolling update never ends: a new pod is not ready before it leads, and the leader stays until one is ready"
        yield finding("KUB071", view.source, f"{workload.title}: strategy", message, "set strategy.type to Recreate")


def _lease(view: ClusterView, now: datetime) -> Iterator[Finding]:
    if not (view.leases.is_known or view.leases.is_absent):
        return
    lease = view.leases.items[0] if view.leases.items else {}
    spec, place = mapping(lease.get("spec")), f"Lease {name_of(lease)}".strip()
    holder = str(spec.get("holderIdentity") or "")
    fix = "see that a picker runs, and its rights on leases; its log says 'leader election'"
    if not holder:
        message = (
            "nobody leads, so no picker is ready" if lease else "there is no lease yet, so no picker leads and none is ready"
        )
        yield finding("KUB072", view.source, place, message, fix)
        return
    age_s = _age_s(spec.get("renewTime"), now)
    if age_s is not None and age_s > number(spec.get("leaseDurationSeconds"), 15) + _SLACK_S:
        message = f"{holder} has not renewed it for {age_s:.0f} s, and nobody has taken over"
        yield finding("KUB072", view.source, place, message, fix, value=holder)
        return
    pods = [name_of(pod) for pod in view.picker_pods]
    if view.pods.is_known and not any(holder.startswith(f"{pod}_") for pod in pods):
        message = (
            f"{holder} leads, which is none of the picker's pods ({some(pods) or 'there are none'}), so these are not ready"
        )
        fix = "end the other picker of this pool, or give one of them another --lease-name"
        yield finding("KUB073", view.source, place, message, fix, value=holder)


def _age_s(text: object, now: datetime) -> float | None:
    try:
        then = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return (now - (then if then.tzinfo else then.replace(tzinfo=UTC))).total_seconds()


def _resources(view: ClusterView, workload: Workload) -> Iterator[Finding]:
    resources, place = mapping(workload.container.get("resources")), f"{workload.title}: resources"
    limits = mapping(resources.get("limits"))
    requests = {**limits, **mapping(resources.get("requests"))}  # a limit is the request where none is given
    if lacking := [name for name in ("cpu", "memory") if name not in requests]:
        message = f"no {' and no '.join(lacking)} is requested, so busy neighbours make every request wait, or end the picker"
        yield finding(
            "KUB074", view.source, place, message, "request a core and 1Gi, or what its metrics show", value=lacking[0]
        )
    cpu = _cores(limits.get("cpu"))
    if cpu is not None and cpu < 1:
        message = f"a limit of {limits['cpu']} stops the event loop for the rest of each 100 ms in which it has been used up"
        yield finding("KUB075", view.source, place, message, "remove the limit, or raise it to 2", value=limits["cpu"])
    memory = _bytes(limits.get("memory"))
    bodies = _bytes(workload.flag("max-buffered-bytes")) or Options().max_buffered_bytes
    if memory is not None and memory < bodies + _BASE_BYTES:
        message = (
            f"a limit of {limits['memory']} is less than the bodies that may be held ({bodies >> 20} MiB) and the picker itself"
        )
        fix = "raise it, or lower --max-buffered-bytes"
        yield finding("KUB076", view.source, place, message, fix, value=limits["memory"])


def _cores(text: object) -> float | None:
    digits = str(text).removesuffix("m")
    try:
        return float(digits) / (1000 if str(text).endswith("m") else 1)
    except ValueError:
        return None


def _bytes(text: object) -> int | None:
    try:
        return parse_quantity(text) if text else None
    except (ValueError, TypeError):
        return None


def _stop(view: ClusterView, workload: Workload) -> Iterator[Finding]:
    grace_s = number(workload.pod.get("terminationGracePeriodSeconds"), _DEFAULT_GRACE_S)
    drain_s = _duration_s(workload.flag("drain-timeout"), Options().drain_timeout_s)
    end_s = _duration_s(workload.variable("EPP_GRACEFUL_SHUTDOWN_TIMEOUT"), drain_s)
    if end_s >= 0 and grace_s < drain_s + end_s:
        needed = format_duration(drain_s + end_s)
        message = f"terminationGracePeriodSeconds is {grace_s}, and it drains and ends open streams for up to {needed}"
        yield finding("KUB077", view.source, workload.title, message, f"raise it above {needed}", value=grace_s)


def _duration_s(text: str, default: float) -> float:
    try:
        return parse_duration(text) if text else default
    except ValueError:
        return default


def _probe(view: ClusterView, workload: Workload) -> Iterator[Finding]:
    probe = mapping(workload.container.get("livenessProbe"))
    grpc, http = mapping(probe.get("grpc")), mapping(probe.get("httpGet"))
    asked = str(grpc.get("service") or "readiness") if grpc else str(http.get("path", ""))
    if (grpc and asked != "liveness") or asked == "/readyz":
        message = f"the liveness probe asks for {asked}, so a picker that follows, drains or waits for its pool is killed"
        fix = "set grpc.service to liveness, or httpGet.path to /healthz"
        yield finding("KUB078", view.source, f"{workload.title}: livenessProbe", message, fix, value=asked)


def _mounted(view: ClusterView, workload: Workload) -> Iterator[Finding]:
    path = workload.flag("pools-file") or workload.flag("config-file")
    mount = workload.mount(path) if path else {}
    if mount.get("subPath") and workload.is_on("watch-config-file"):
        message = f"{path} is mounted with subPath, which never changes, so there is nothing to watch"
        yield finding("KUB080", view.source, workload.title, message, "mount the ConfigMap as a directory", value=path)


def _restarts(view: ClusterView) -> Iterator[Finding]:
    for pod in view.picker_pods:
        for state in mappings(mapping(pod.get("status")).get("containerStatuses")):
            ended = mapping(mapping(state.get("lastState")).get("terminated"))
            if number(state.get("restartCount"), 0) and ended:
                how = f"{ended.get('reason')}, exit code {ended.get('exitCode')}"
                message = f"its container {state.get('name')} was restarted {state['restartCount']} times, last after {how}"
                fix = "raise the memory limit" if ended.get("reason") == "OOMKilled" else "read `kubectl logs --previous`"
                yield finding("KUB081", view.source, f"Pod {name_of(pod)}", message, fix, value=ended.get("reason"))
