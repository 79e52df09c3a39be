"""Objects of the cluster of which several versions come together."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from epp.cluster.watch import Collection
from epp.datalayer.objects import GROUP, ObjectStore, PoolIdentity
from epp.discovery.kube_inference import InferenceObjects
from tests.unit.cluster.api_server import ApiServer, Reply

COLLECTION = Collection(f"/apis/{GROUP}/v1alpha2/namespaces/n/inferenceobjectives")


def objective(priority: object, version: str) -> dict[str, Any]:
    """A version of the objective ``o``."""
    return {
        "apiVersion": f"{GROUP}/v1alpha2",
        "kind": "InferenceObjective",
        "metadata": {"name": "o", "namespace": "n", "resourceVersion": version},
        "spec": {"priority": priority, "poolRef": {"name": "p"}},
    }


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        pytest.param([("MODIFIED", 2), ("MODIFIED", "much")], 2, id="invalid after a change"),
        pytest.param([("DELETED", 1), ("ADDED", "much")], 0, id="invalid after it was deleted"),
        pytest.param([("MODIFIED", "much"), ("MODIFIED", 2)], 2, id="invalid for a moment"),
        pytest.param([("MODIFIED", "much")], 1, id="invalid"),
    ],
)
async def test_the_version_in_front_of_an_invalid_one_stays(
    tmp_path: Path, events: list[tuple[str, object]], expected: int
) -> None:
    listed = Reply(document={"metadata": {"resourceVersion": "1"}, "items": [objective(1, "1")]})
    lines = [{"type": kind, "object": objective(priority, str(2 + n))} for n, (kind, priority) in enumerate(events)]
    together = b"".join(orjson.dumps(line) + b"\n" for line in lines)
    store = ObjectStore(PoolIdentity("p", "n"))
    async with ApiServer(listed, Reply(events=[together])) as server:
        connection = server.connection(tmp_path)
        task = asyncio.create_task(InferenceObjects(connection, store, lambda _: None)._follow(COLLECTION))
        async with asyncio.timeout(10):
            while len(server.asked) < 3:  # it goes on behind what was told
                assert not task.done()
                await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await connection.close()
    assert store.priority("o") == expected
