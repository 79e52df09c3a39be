"""Who may read the metrics port of a picker in a cluster."""

from __future__ import annotations

from tests.kube.api import Api
from tests.kube.conftest import StartPicker
from tests.kube.manifests import pod, pool
from tests.kube.test_events import A

RBAC = "rbac.authorization.k8s.io/v1"


def granted(name: str, account: str, namespace: str, rules: list[dict[str, object]]) -> list[dict[str, object]]:
    """A cluster role, given to a service account."""
    subject = {"kind": "ServiceAccount", "name": account, "namespace": namespace}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
    return [
        {"apiVersion": RBAC, "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules},
        {"apiVersion": RBAC, "kind": "ClusterRoleBinding", "metadata": {"name": name}, "roleRef": role, "subjects": [subject]},
    ]


async def test_the_api_server_decides(api: Api, start: StartPicker) -> None:
    await api.create(pool())
    await api.create(pod("a", A))
    reviews = [
        {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
        {"apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"]},
    ]
    pages = [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]
    picker = await start("--metrics-endpoint-auth=true")

    async def status(path: str = "/metrics", token: str = "") -> int:
        return (await picker.page(path, {"Authorization": f"Bearer {token}"} if token else {}))[0]

    scraper, stranger = await api.token("scraper"), await api.token("stranger")
    assert await status() == 401
    assert await status(token=scraper) == 500, "it may not ask"
    for manifest in (
        *granted(f"{api.namespace}-reviews", "epp", api.namespace, reviews),
        *granted(f"{api.namespace}-pages", "scraper", api.namespace, pages),
    ):
        await api.create(manifest)
    assert await status(token="garbage") == 401
    assert await status(token=scraper) == 200
    assert await status("/debug/endpoints", scraper) == 403
    assert await status(token=stranger) == 403
    asked = [found for found in api.cluster.audited() if api.namespace in found.user and "reviews" in found.uri]
    for _ in range(20):
        assert await status(token=scraper) == 200
    assert [f for f in api.cluster.audited() if api.namespace in f.user and "reviews" in f.uri] == asked
