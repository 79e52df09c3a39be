"""Documents of a cluster → findings."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

import pytest

from epp.datalayer.objects import GROUP, LEGACY_GROUP, POOL_GROUP
from epp.doctor.cluster.look import check_view
from epp.doctor.cluster.pods import check_known, endpoints_of
from epp.doctor.cluster.rights import Uses, needed
from epp.doctor.cluster.view import Read
from epp.doctor.cluster.workload import Workload, picker_workload
from epp.errors import Finding
from tests.unit.doctor.clusters import (
    ABSENT,
    FORBIDDEN,
    NOW,
    SILENT,
    Break,
    Cluster,
    lease,
    objective,
    pair,
    pod,
    pool_object,
    refused,
    secret,
    with_pools,
    with_secret,
)

CHAT: dict[str, Any] = {"name": "chat", "match": {"authorities": ["chat.example.com"]}}
CODE: dict[str, Any] = {"name": "code", "match": {"authorities": ["code.example.com"]}}
OWN: dict[str, Any] = {"name": "chat"}


def several(*pools: dict[str, Any]) -> Break:
    """A picker of several pools."""
    return lambda c: with_pools(c, *pools)


def findings(*changes: Break, replicas: int = 1) -> list[Finding]:
    """What is found in a good cluster that was changed."""
    cluster = Cluster(replicas)
    for change in changes:
        change(cluster)
    return check_view(cluster.view(), NOW)


@pytest.mark.parametrize("replicas", [1, 2])
def test_what_manifests_make_is_right(replicas: int) -> None:
    assert findings(replicas=replicas) == []


def answers(**changed: Any) -> Break:
    """Other answers of the API server."""
    return lambda c: c.changes.update(changed)


def set_in(path: str, value: object) -> Break:
    """Another value at a path such as ``pool.spec.selector``; ``...`` removes it."""

    def change(cluster: Cluster) -> None:
        first, *steps = path.split(".")
        place = getattr(cluster, first)
        for step in steps[:-1]:
            place = place[int(step) if step.isdecimal() else step]
        last: Any = int(steps[-1]) if steps[-1].isdecimal() else steps[-1]
        if value is ...:
            del place[last]
        else:
            place[last] = value

    return change


def args(*words: str) -> Break:
    """More flags of the picker."""
    return lambda c: c.container["args"].extend(words)


def labelled(**labels: str) -> Break:
    """More labels of the first server."""
    return lambda c: c.servers[0]["metadata"]["labels"].update(labels)


def legacy(cluster: Cluster) -> None:
    """The pool in the older group alone."""
    spec = {"selector": {"app": "chat"}, "targetPortNumber": 8000, "extensionRef": {"name": "chat-epp"}}
    default = {"parentRef": {"kind": "Status", "name": "default"}, "conditions": [{"type": "Accepted", "status": "Unknown"}]}
    cluster.pools = {
        POOL_GROUP: [],
        LEGACY_GROUP: [{"metadata": {"name": "chat", "namespace": "default"}, "spec": spec, "status": {"parent": [default]}}],
    }
    cluster.changes["group"] = LEGACY_GROUP
    cluster.route["spec"]["rules"][0]["backendRefs"][0]["group"] = LEGACY_GROUP
    cluster.container["args"].append(f"--pool-group={LEGACY_GROUP}")


def unready(cluster: Cluster, *numbers: int, **state: Any) -> None:
    for number in numbers:
        status = cluster.servers[number]["status"]
        status["conditions"] = [{"type": "Ready", "status": "False", "reason": "ContainersNotReady"}]
        status["containerStatuses"] = [{"name": "server", "state": state}]


def condition(kind: str) -> dict[str, str]:
    return {"type": kind, "status": "False", "reason": "Reason", "message": "what is wrong"}


def secured(read: Read, *flags: str) -> Break:
    return lambda c: with_secret(c, read, *flags)


def tolerant(c: Cluster) -> None:
    c.deployment["spec"]["strategy"] = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "100%"}}


GOOD, KEY = pair()
OTHER_KEY = pair()[1]
RELOADS = "--enable-cert-reload"
RANK = {"name": "rank", "args": ["--data-parallel-rank", "1", "--port", "8001"]}
PROXY = {"name": "istio-proxy", "ports": [{"containerPort": 15090}]}
ROUTE_TO = "route.spec.rules.0.backendRefs.0"

CASES: list[tuple[str, tuple[Break, ...], list[str]]] = [
    # the pool
    ("no pool", (answers(pools={POOL_GROUP: Read(), LEGACY_GROUP: Read()}, routes=Read()),), ["KUB001"]),
    ("not installed", (answers(pools={POOL_GROUP: ABSENT, LEGACY_GROUP: ABSENT}, routes=ABSENT),), ["KUB002"]),
    ("only the other group", (legacy, answers(group=POOL_GROUP, routes=Read()), args("--pool-group=")), ["KUB001"]),
    ("pools that may not be read", (answers(pools={POOL_GROUP: FORBIDDEN, LEGACY_GROUP: ABSENT}),), []),
    ("both groups", (lambda c: c.pools[LEGACY_GROUP].append(pool_object("chat", LEGACY_GROUP)),), ["KUB003"]),
    ("the older group", (legacy,), ["KUB007"]),
    ("being deleted", (set_in("pool.metadata.deletionTimestamp", "2026-01-01T00:00:00Z"),), ["KUB004"]),
    ("not accepted", (set_in("pool.status.parents.0.conditions.0", condition("Accepted")),), ["KUB005"]),
    ("not resolved", (set_in("pool.status.parents.0.conditions.1", condition("ResolvedRefs")),), ["KUB006"]),
    ("no status", (set_in("pool.status", ...),), ["KUB007"]),
    # its picker
    ("no picker", (set_in("pool.spec.endpointPickerRef", ...),), ["KUB010"]),
    ("a picker that is no Service", (set_in("pool.spec.endpointPickerRef.kind", "Other"),), ["DOC003"]),
    ("no Service", (answers(services=Read()),), ["KUB011"]),
    ("Services that may not be read", (answers(services=FORBIDDEN),), []),
    ("an ExternalName", (set_in("service.spec.type", "ExternalName"),), ["KUB012"]),
    ("no such port", (set_in("pool.spec.endpointPickerRef.port.number", 9999),), ["KUB013"]),
    ("HTTP/1", (set_in("service.spec.ports.0.appProtocol", "http"),), ["KUB014"]),
    ("no protocol", (set_in("service.spec.ports.0.appProtocol", ...),), []),
    ("a port that nobody names", (set_in("service.spec.ports.0.targetPort", "grcp"),), ["KUB015"]),
    ("a port by its number", (set_in("service.spec.ports.0.targetPort", 9002), args("--grpc-port=9002")), []),
    ("a port where it does not listen", (args("--grpc-port", "9100"),), ["KUB015"]),
    ("no endpoint", (set_in("slice.endpoints", []), set_in("pickers.0.status.conditions", [])), ["KUB016"]),
    ("an endpoint that is not ready", (set_in("slice.endpoints.0.conditions.ready", False),), ["KUB016"]),
    ("an endpoint of which nothing is known", (set_in("slice.endpoints.0.conditions", {}),), []),
    ("no pod of the picker", (answers(slices=Read()), lambda c: c.pickers.clear()), ["KUB016"]),
    ("a Service without selector", (set_in("service.spec.selector", ...), answers(slices=Read())), ["KUB016"]),
    ("EndpointSlices that may not be read", (answers(slices=FORBIDDEN),), []),
    ("FailOpen", (set_in("pool.spec.endpointPickerRef.failureMode", "FailOpen"),), ["KUB018"]),
    # pods
    ("an empty selector", (set_in("pool.spec.selector.matchLabels", {}),), ["KUB030"]),
    ("no pod", (set_in("pool.spec.selector.matchLabels", {"app": "caht"}),), ["KUB031"]),
    ("pods that may not be read", (answers(pods=FORBIDDEN),), []),
    ("no pod is ready", (lambda c: unready(c, 0, 1, waiting={"reason": "CrashLoopBackOff"}),), ["KUB032"]),
    ("one pod is not ready", (lambda c: unready(c, 1, running={}),), ["KUB033"]),
    ("one pod has no address", (set_in("servers.0.status.podIP", ""),), ["KUB033"]),
    ("one pod is being deleted", (set_in("servers.0.metadata.deletionTimestamp", "2026-01-01T00:00:00Z"),), ["KUB033"]),
    ("the picker itself", (lambda c: c.pickers[0]["metadata"]["labels"].update(app="chat"),), ["KUB034", "KUB036"]),
    ("several pools", (lambda c: c.pools[POOL_GROUP].append(pool_object("all", app="chat")),), ["KUB035"]),
    ("several pools that share nothing", (lambda c: c.pools[POOL_GROUP].append(pool_object("all", app="x")),), []),
    ("a port that is not listed", (set_in("pool.spec.targetPorts", [{"number": 8000}, {"number": 8001}]),), ["KUB036"]),
    (
        "a port that is not listed and not active",
        (
            set_in("pool.spec.targetPorts", [{"number": 8000}, {"number": 8001}]),
            lambda c: [each["metadata"].update(annotations={"llm-d.ai/active-ports": "8000"}) for each in c.servers],
        ),
        [],
    ),
    ("no port is listed", (lambda c: [each["spec"]["containers"][0].pop("ports") for each in c.servers],), []),
    ("no port is active", (set_in("servers.0.metadata.annotations", {"llm-d.ai/active-ports": "1"}),), ["KUB037"]),
    ("one role", (labelled(**{"llm-d.ai/role": "decode"}),), []),
    ("two roles", (labelled(**{"llm-d.ai/role": "decode", "mif.moreh.io/role": "prefill"}),), ["KUB038"]),
    ("two labels with one role", (labelled(**{"llm-d.ai/role": "decode", "mif.moreh.io/role": "decode"}),), []),
    ("no such role", (labelled(**{"llm-d.ai/role": "decoder"}),), ["KUB038"]),
    ("a rank elsewhere", (lambda c: c.servers[0]["spec"]["containers"].append(RANK),), ["KUB039"]),
    ("a server elsewhere", (lambda c: c.servers[0]["spec"]["containers"].append({"args": ["--port=8001"]}),), []),
    ("only a proxy lists ports", (lambda c: c.servers[0]["spec"]["containers"].__setitem__(0, PROXY),), []),
    ("a Service of the servers", (set_in("service.spec.selector", {"app": "chat"}),), ["KUB034"]),
    # routes
    ("no route", (lambda c: c.routes.clear(),), ["KUB050"]),
    ("routes that may not be read", (answers(routes=FORBIDDEN),), []),
    ("no such pool", (set_in(f"{ROUTE_TO}.name", "caht"),), ["KUB051", "KUB050"]),
    ("no such group", (set_in(f"{ROUTE_TO}.group", "x"),), ["KUB051", "KUB050"]),
    ("a pool of another namespace", (set_in(f"{ROUTE_TO}.namespace", "other"),), ["KUB050"]),
    (
        "a route of another namespace",
        (set_in("route.metadata.namespace", "other"), set_in(f"{ROUTE_TO}.namespace", "default")),
        [],
    ),
    ("a short timeout", (set_in("route.spec.rules.0.timeouts.request", "15s"),), ["KUB052"]),
    ("a long timeout", (set_in("route.spec.rules.0.timeouts.request", "1h"),), []),
    ("a short timeout of tries", (set_in("route.spec.rules.0.timeouts", {"backendRequest": "1m30s"}),), ["KUB052"]),
    ("a route not accepted", (set_in("route.status.parents.0.conditions.0", condition("Accepted")),), ["KUB053"]),
    ("a route not resolved", (set_in("route.status.parents.0.conditions.0", condition("ResolvedRefs")),), ["KUB053"]),
    # objectives and rewrites
    ("an objective", (lambda c: c.objects.append(objective("urgent")),), []),
    ("an objective of no pool", (lambda c: c.objects.append(objective("urgent", pool="caht")),), ["KUB054"]),
    (
        "an objective of the other group",
        (lambda c: c.objects.append(objective("urgent", pool_group=LEGACY_GROUP)),),
        ["KUB055"],
    ),
    (
        "an objective of another pool",
        (
            lambda c: c.pools[POOL_GROUP].append(pool_object("other", app="x")),
            lambda c: c.objects.extend([objective("urgent", pool="other"), objective("later", pool="other")]),
        ),
        ["KUB056"],
    ),
    (
        "an objective of a pool that may not be read",
        (
            lambda c: c.objects.append(objective("urgent", pool="other")),
            lambda c: c.changes.update(pools={POOL_GROUP: Read([c.pool]), LEGACY_GROUP: FORBIDDEN}),
        ),
        [],
    ),
    (
        "an objective in both groups",
        (lambda c: c.objects.extend([objective("urgent"), objective("urgent", group=LEGACY_GROUP)]),),
        ["KUB057"],
    ),
    ("an objective of the older group", (lambda c: c.objects.append(objective("urgent", group=LEGACY_GROUP)),), []),
    ("an objective that is none", (lambda c: c.objects.append(objective("urgent", priority="high")),), ["KUB058"]),
    ("an objective of a newer definition", (lambda c: c.objects.append(objective("urgent", newer=1)),), []),
    # rights
    ("all rights", (lambda c: c.rights.append(refused("list", "pods")._replace(is_allowed=True)),), []),
    ("no right", (lambda c: c.rights.extend([refused("list", "pods"), refused("watch", "pods")]),), ["RBC001"]),
    ("no right that matters", (lambda c: c.rights.append(refused("create", "events", optional=True)),), ["RBC002"]),
    # deployment
    ("side by side", (set_in("deployment.spec.replicas", 2),), ["KUB070"]),
    ("resources", (set_in("container.resources", {}),), ["KUB074"]),
    ("only limits", (set_in("container.resources", {"limits": {"cpu": "2", "memory": "4Gi"}}),), []),
    ("a small CPU", (set_in("container.resources.limits", {"cpu": "500m"}),), ["KUB075"]),
    ("a small memory", (set_in("container.resources.limits", {"memory": "1Gi"}),), ["KUB076"]),
    (
        "a small memory for few bodies",
        (set_in("container.resources.limits", {"memory": "1Gi"}), args("--max-buffered-bytes=512Mi")),
        [],
    ),
    ("a short grace", (set_in("spec.terminationGracePeriodSeconds", ...),), ["KUB077"]),
    ("a short grace for a short drain", (set_in("spec.terminationGracePeriodSeconds", 20), args("--drain-timeout=10s")), []),
    ("a probe of readiness", (set_in("container.livenessProbe.grpc.service", "readiness"),), ["KUB078"]),
    ("a probe of a page", (set_in("container.livenessProbe", {"httpGet": {"path": "/readyz"}}),), ["KUB078"]),
    ("no probe", (set_in("container.livenessProbe", ...),), []),
    ("another pool", (args("--pool-name=other"),), ["KUB079"]),
    ("another namespace", (args("--pool-namespace", "other"),), ["KUB079"]),
    ("several pools", (several(CHAT, CODE),), []),
    ("several pools of this namespace, by name", (several({**CHAT, "namespace": "default"}, CODE),), []),
    ("several others", (several(CODE, {"name": "more", "default": True}),), ["KUB079"]),
    ("several pools, this one of another namespace", (several({**CHAT, "namespace": "other"}, CODE),), ["KUB079"]),
    ("several pools, this one of another group", (several({**CHAT, "group": LEGACY_GROUP}, CODE),), ["KUB079"]),
    ("several pools, this one of fixed servers", (several({**CHAT, "endpoints": ["10.0.0.1:8000"]}, CODE),), ["KUB079"]),
    (
        "several pools, this one by labels",
        (several({**CHAT, "endpointSelector": "app=chat", "targetPorts": [8000]}, CODE),),
        ["KUB079"],
    ),
    (
        "several pools, this one at a port that the Service does not lead to",
        (several({**OWN, "grpcPort": 9102}, CODE),),
        ["KUB015"],
    ),
    (
        "several pools, this one at its own port",
        (
            several({**OWN, "grpcPort": 9102}, CODE),
            set_in("service.spec.ports.0.targetPort", 9102),
            args("--grpc-port=9002"),
        ),
        [],
    ),
    ("a pools file that is wrong", (several({**CHAT, "matsch": {}}),), ["KUB082"]),
    ("a pools file that is not there", (lambda c: with_pools(c, other=""),), ["KUB082"]),
    ("no ConfigMap of the pools file", (several(CHAT), answers(config_map=ABSENT)), ["KUB082"]),
    ("a ConfigMap that may not be read", (several(CODE), answers(config_map=FORBIDDEN)), []),
    (
        "a pools file under another key",
        (
            several(CHAT, CODE),
            lambda c: c.spec["volumes"][-1]["configMap"].update(items=[{"key": "other.yaml", "path": "pools.yaml"}]),
        ),
        ["KUB082"],
    ),
    (
        "a pools file that never changes",
        (
            several(CHAT, CODE),
            args("--watch-config-file"),
            lambda c: c.container["volumeMounts"][-1].update(mountPath="/config/pools.yaml", subPath="pools.yaml"),
        ),
        ["KUB080"],
    ),
    (
        "a file that never changes",
        (
            args("--config-file=/config/config.yaml", "--watch-config-file"),
            lambda c: c.container["volumeMounts"].append({"name": "c", "mountPath": "/config/config.yaml", "subPath": "x"}),
        ),
        ["KUB080"],
    ),
    (
        "a restart",
        (
            set_in(
                "pickers.0.status.containerStatuses",
                [{"name": "epp", "restartCount": 2, "lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}],
            ),
        ),
        ["KUB081"],
    ),
    ("only pods can be seen", (answers(deployments=FORBIDDEN),), []),
    (
        "only pods can be seen, with a mistake",
        (answers(deployments=FORBIDDEN), set_in("pickers.0.spec.containers.0.resources", {})),
        ["KUB074"],
    ),
    # certificates
    ("a certificate", (secured(secret(GOOD, KEY), RELOADS),), []),
    ("a certificate that is not read again", (secured(secret(GOOD, KEY)),), ["CRT009"]),
    ("no Secret", (secured(ABSENT, RELOADS),), ["CRT008"]),
    ("a Secret that may not be read", (secured(FORBIDDEN, RELOADS),), []),
    ("a Secret without a key", (secured(secret(GOOD), RELOADS),), ["CRT008"]),
    ("a Secret with something else", (secured(secret(b"x", b"y"), RELOADS),), ["CRT008"]),
    ("another key", (secured(secret(GOOD, OTHER_KEY), RELOADS),), ["CRT008"]),
    ("an old certificate", (secured(secret(*pair(days=-1, begins=-9)), RELOADS),), ["CRT001"]),
    ("a certificate that ends soon", (secured(secret(*pair(days=3)), RELOADS),), ["CRT003"]),
    (
        "an answer that did not come",
        (answers(pods=SILENT, services=SILENT, slices=SILENT, deployments=SILENT, routes=SILENT),),
        [],
    ),
]
ELECTING: list[tuple[str, tuple[Break, ...], list[str]]] = [
    ("an update that never ends", (set_in("deployment.spec.strategy", {}),), ["KUB071"]),
    ("an update that ends all", (tolerant,), []),
    ("no lease", (lambda c: c.lease.clear(),), ["KUB072"]),
    ("a lease of nobody", (set_in("lease.spec.holderIdentity", ""),), ["KUB072"]),
    ("an old lease", (lambda c: c.lease.update(lease("chat-epp-0_uid", NOW - dt.timedelta(minutes=5))),), ["KUB072"]),
    ("another picker", (set_in("lease.spec.holderIdentity", "other-epp-0_uid"),), ["KUB073"]),
    ("a lease that may not be read", (answers(leases=FORBIDDEN),), []),
]


@pytest.mark.parametrize(("changes", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_one_picker(changes: tuple[Break, ...], expected: list[str]) -> None:
    found = findings(*changes)
    assert [each.code for each in found] == expected, found
    assert all(each.fix and each.file.startswith("kubernetes:default") for each in found)


@pytest.mark.parametrize(("changes", "expected"), [case[1:] for case in ELECTING], ids=[case[0] for case in ELECTING])
def test_two_pickers_that_elect_a_leader(changes: tuple[Break, ...], expected: list[str]) -> None:
    found = findings(*changes, replicas=2)
    assert [each.code for each in found] == expected, found
    assert all(each.fix for each in found)


MESSAGES: list[tuple[Break, str]] = [
    (answers(pools={POOL_GROUP: Read([pool_object("chat2")]), LEGACY_GROUP: Read()}, routes=Read()), "did you mean 'chat2'?"),
    (answers(pools={POOL_GROUP: Read(), LEGACY_GROUP: Read()}, routes=Read(), elsewhere=["a/chat"]), "others do: a/chat"),
    (answers(services=Read([{"metadata": {"name": "chat-ep"}}])), "did you mean 'chat-ep'?"),
    (set_in("pool.spec.selector.matchLabels", {"app": "caht"}), "chat-a has app=chat"),
    (set_in("pool.spec.endpointPickerRef.port.number", 9999), "it has 9002 (grpc-ext-proc), 9090 (http-metrics)"),
    (lambda c: unready(c, 1, waiting={"reason": "ImagePullBackOff"}), "chat-b (server: ImagePullBackOff)"),
    (
        lambda c: c.rights.append(refused("list", "pods")),
        "the service account default/chat-epp may not list pods in the namespace",
    ),
    (lambda c: c.rights.append(refused("create", "tokenreviews", namespace="")), "may not create tokenreviews in the cluster"),
]


@pytest.mark.parametrize(("change", "text"), MESSAGES)
def test_messages_name_what_was_meant(change: Break, text: str) -> None:
    assert text in findings(change)[0].message


def test_a_secrets_key_is_never_shown() -> None:
    for read in (secret(GOOD, OTHER_KEY), secret(b"-----BEGIN", KEY), secret(None, KEY)):
        shown = str(findings(secured(read)))
        assert KEY.decode().splitlines()[1] not in shown
        assert OTHER_KEY.decode().splitlines()[1] not in shown


def test_many_names_are_counted() -> None:
    def crowd(cluster: Cluster) -> None:
        cluster.servers = [pod(f"chat-{n}", {"app": "chat"}, "", 8000) for n in range(9)]

    [found] = findings(crowd)
    assert "9 pods and none is ready" in found.message
    assert "chat-4 (has no address) and 4 more" in found.message


def workload(*words: str, env: Mapping[str, str] | None = None) -> Workload:
    environ = [{"name": name, "value": value} for name, value in (env or {}).items()]
    return Workload("Deployment", "epp", 1, {}, {"args": list(words), "env": environ})


@pytest.mark.parametrize(
    ("picker", "expected"),
    [
        (workload("--grpc-port=1"), "1"),
        (workload("--grpc-port", "1", "--other"), "1"),
        (workload("--grpc-port=1", "--grpc-port=2"), "2"),
        (workload("--grpc-port"), "true"),
        (workload("--no-grpc-port"), "false"),
        (workload("--grpc-ports=1"), ""),
        (workload("--grpc-port=1", "--grpc-port="), ""),
        (workload("--grpc-port=$(PORT)", env={"PORT": "5"}), "5"),
        (workload(env={"EPP_GRPC_PORT": "3"}), "3"),
        (workload("--grpc-port=1", env={"EPP_GRPC_PORT": "3"}), "1"),
    ],
)
def test_flags_of_a_picker(picker: Workload, expected: str) -> None:
    assert picker.flag("grpc-port") == expected


def test_the_picker_is_found_among_side_cars() -> None:
    cluster = Cluster()
    cluster.spec["containers"].insert(0, {"name": "tokenizer", "args": ["--port=1"]})
    found = picker_workload(cluster.view())
    assert found is not None
    assert found.container["name"] == "epp"


def test_rights_that_a_picker_needs() -> None:
    def shown(uses: Uses, groups: list[str]) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for right in needed("n", POOL_GROUP, uses, groups):
            found.setdefault(right.resource, set()).add(right.verb)
        return found

    reads = {"get", "list", "watch"}
    least = {"pods": reads, "inferencepools": reads, "events": {"create", "patch"}}
    assert shown(Uses(), []) == least
    assert shown(Uses(), [GROUP]) == {**least, "inferenceobjectives": reads, "inferencemodelrewrites": reads}
    assert shown(Uses(elects=True), [])["leases"] == {*reads, "create", "update"}
    assert shown(Uses(authenticates=True), [])["tokenreviews"] == {"create"}


def test_the_picker_should_have_the_endpoints_of_the_pool() -> None:
    cluster = Cluster()
    unready(cluster, 1)
    view = cluster.view()
    assert [endpoint.host_port for endpoint in endpoints_of(view)] == ["10.0.0.1:8000"]
    right = {"default/chat-a-rank-0": "10.0.0.1:8000"}
    assert list(check_known(view, "http://picker", right)) == []
    wrong = {"default/chat-a-rank-0": "10.0.0.9:8000"}
    found = list(check_known(view, "http://picker", wrong))
    assert [each.code for each in found] == ["KUB040", "KUB040"]
    assert "does not know default/chat-a-rank-0 (10.0.0.1:8000)" in found[0].message
    assert "knows default/chat-a-rank-0 (10.0.0.9:8000), which the pool has not" in found[1].message


def covered() -> set[str]:
    """Codes that a case of this module expects."""
    return {code for case in (*CASES, *ELECTING) for code in case[2]} | {"KUB040"}
