"""Parameters: which back end they give, and what is refused when a configuration is loaded (L27, L28, worked case 120)."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from epp.framework.params import parse_duration
from epp.framework.testing import make_context, make_plugin
from plugins.stores import backend, responses
from plugins.stores.backend import MemoryBackend
from plugins.stores.parameters import ResponsesStoreParams, TieredStore
from tests.unit.plugins.responses_store.rig import make_store

REDIS = {"address": "redis://store:6379"}
MONGO = {"uri": "mongodb://store"}


def tiered(redis: object = REDIS, **more: object) -> dict[str, Any]:
    return {"storeConfig": {"tieredConfig": {"redis": redis, **more}}}


REFUSED = [
    pytest.param({"storeConfig": {}}, "needs inMemoryConfig or tieredConfig", id="L27, prefix 120: no back end"),
    pytest.param({"storeConfig": {"tieredConfig": {}}}, "tieredConfig needs redis", id="L28, prefix 120: no redis"),
    pytest.param({"storeConfig": {"tieredConfig": {"mongo": MONGO}}}, "tieredConfig needs redis", id="mongo alone"),
    pytest.param(tiered({**REDIS, "addresses": ["a:1"]}), "exactly one of address and addresses", id="L28, prefix 120: both"),
    pytest.param(tiered({"db": 1}), "exactly one of address and addresses", id="neither"),
    pytest.param(tiered({**REDIS, "masterName": "m"}), "masterName needs addresses", id="masterName alone"),
    pytest.param(tiered(mongo={}), "uri", id="mongo without uri"),
    pytest.param(tiered(mongo={"uri": ""}), "uri", id="empty uri"),
    pytest.param({"storeConfig": {"inMemoryConfig": {"ttl": "soon"}}}, "ttl", id="bad duration"),
    pytest.param({"storeConfig": {"inMemoryConfig": {"ttl": "0s"}}}, "greater than 0", id="zero duration"),
    pytest.param({"storeConfig": {"inMemoryConfig": {"ttl": "-1s"}}}, "greater than 0", id="negative duration"),
    pytest.param({"storeConfig": {"inMemoryConfig": {"ttl": 24}}}, "not a duration", id="a number"),
    pytest.param({"storeConfig": {"inMemoryConfig": {"maxEntries": 0}}}, "greater than 0", id="no entries"),
    pytest.param({"storeConfig": {"redis": REDIS}}, "redis", id="unknown parameter"),
    pytest.param(tiered({**REDIS, "db": -1}), "greater than or equal to 0", id="negative database"),
    pytest.param(tiered(stream={"batchSize": 0}), "greater than 0", id="empty batches"),
    pytest.param({"unknownResponses": "ignore"}, "'refuse' or 'forward'", id="unknown way"),
    pytest.param(tiered({"address": "store:6379"}), "must begin with redis://", id="address without scheme"),
    pytest.param(tiered({"addresses": ["store"]}), "'store' is not host:port", id="no port"),
    pytest.param(tiered({"addresses": ["a:1", "b:1"], "db": 2}), "a cluster has one database", id="database of a cluster"),
    pytest.param(tiered(mongo={"uri": "store:27017"}), "must begin with mongodb://", id="uri without scheme"),
]


@pytest.mark.parametrize(("parameters", "text"), REFUSED)
def test_what_is_refused(parameters: dict[str, Any], text: str) -> None:
    with pytest.raises((ValidationError, ValueError)) as refused:
        make_store(parameters)
    assert text in str(refused.value)


ACCEPTED = [
    pytest.param({}, "memory", id="L27 no storeConfig"),
    pytest.param({"storeConfig": {"inMemoryConfig": {}}}, "memory", id="memory"),
    pytest.param(tiered(), "redis", id="redis"),
    pytest.param(tiered({"address": "valkey://u:p@store:1/2"}), "redis", id="valkey"),
    pytest.param(tiered({"address": "valkeys://store"}), "redis", id="valkey with TLS"),
    pytest.param(tiered({"addresses": ["[::1]:6379"]}), "redis", id="IPv6"),
    pytest.param(tiered({"addresses": ["a:1", "b:1"], "masterName": "m", "db": 2}), "redis", id="sentinel"),
    pytest.param(tiered({"addresses": ["a:1", "b:1"]}), "redis", id="cluster"),
    pytest.param(tiered(mongo=MONGO), "redis, mongodb", id="both tiers"),
    pytest.param(tiered(mongo={"uri": "mongodb+srv://store.invalid"}), "redis, mongodb", id="nothing is resolved or reached"),
]


@pytest.mark.parametrize(("parameters", "kind"), ACCEPTED)
async def test_what_is_accepted(parameters: dict[str, Any], kind: str) -> None:
    store = make_store(parameters)
    state = store.debug_state()
    assert isinstance(state, dict)
    assert state["backend"] == kind
    await store.stop()


async def test_prefix_120_both_back_ends_give_the_tiered_one_and_a_warning() -> None:
    context = make_context("responses-store")
    parameters = {"storeConfig": {"inMemoryConfig": {}, "tieredConfig": {"redis": REDIS}}}
    store = make_plugin(responses.PLUGIN, parameters, context)
    assert store.debug_state()["backend"] == "redis"
    assert context.warnings == [("storeConfig.inMemoryConfig", "not used: storeConfig.tieredConfig is given, too, and wins")]
    await store.stop()


def test_defaults() -> None:
    memory = responses._backend(make_context("s"), ResponsesStoreParams())
    assert isinstance(memory, MemoryBackend)
    assert (memory._ttl_s, memory._max_entries, memory.max_entry_bytes) == (86400, 10_000, 1024 * 1024)
    tiers = TieredStore.decode({"redis": REDIS, "mongo": MONGO})
    assert isinstance(tiers, TieredStore)
    assert (tiers.redis.db, tiers.redis.ttl, tiers.redis.max_entry_bytes) == (0, 86400, 1024 * 1024)
    assert tiers.mongo is not None
    assert (tiers.mongo.database, tiers.mongo.collection) == ("heimdall", "responses")
    assert (tiers.mongo.ttl, tiers.mongo.timeout) == (parse_duration("720h"), 0.5)
    stream = tiers.stream
    assert (stream.key, stream.consumer_group) == ("heimdall:responses:mongo_sync", "mongo-sync")
    assert (stream.max_len, stream.batch_size, stream.block_timeout, stream.claim_age) == (1_000_000, 100, 1.0, 30.0)


def test_secrets_are_not_shown() -> None:
    parameters = tiered({**REDIS, "password": "hunter2"}, mongo={"uri": "mongodb://u:hunter2@store"})
    assert "hunter2" not in repr(ResponsesStoreParams.decode(parameters))


@pytest.mark.parametrize(
    ("parameters", "package", "extra"),
    [(tiered(), "redis", "redis"), (tiered(mongo=MONGO), "pymongo", "mongodb")],
    ids=["redis", "mongodb"],
)
def test_a_client_library_that_is_not_installed(
    parameters: dict[str, Any], package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = backend.import_module

    def without(name: str) -> object:
        if name.partition(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {name!r}")
        return usual(name)

    monkeypatch.setattr(backend, "import_module", without)
    with pytest.raises(ValueError, match=rf"pip install 'endpoint-picker\[{extra}\]'"):
        make_store(parameters)
    make_store()
