"""Parameters of responses-store."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from epp.framework.params import DurationS, Int, Params

_DAY_S = 86400.0


class InMemoryStore(Params):
    """Responses in this process."""

    ttl: DurationS = Field(default=_DAY_S, gt=0, description="How long a response is kept.")
    max_entries: Int = Field(default=10_000, gt=0, description="Most responses.")
    max_entry_bytes: Int = Field(default=1_048_576, gt=0, description="Larger responses are not kept.")


class RedisStore(Params):
    """Responses in Redis or Valkey: one server, Sentinel or a cluster."""

    address: str = Field(default="", description="URL `redis://` or `valkey://` of one server; excludes `addresses`.")
    addresses: list[str] = Field(default=[], description="host:port of Sentinels (with `masterName`) or cluster nodes.")
    master_name: str = Field(default="", description="Name of the master that Sentinel watches.")
    username: str = Field(default="", description="User.")
    password: str = Field(default="", repr=False, description="Password.")
    db: Int = Field(default=0, ge=0, description="Database number.")
    ttl: DurationS = Field(default=_DAY_S, gt=0, description="How long a response is kept.")
    max_entry_bytes: Int = Field(default=1_048_576, gt=0, description="Larger responses are not kept.")

    @model_validator(mode="after")
    def _check_servers(self) -> RedisStore:
        if self.master_name and not self.addresses:
            raise ValueError("masterName needs addresses, those of the Sentinels")
        if bool(self.address) == bool(self.addresses):
            raise ValueError("exactly one of address and addresses must be given")
        return self


class MongoStore(Params):
    """Older responses in MongoDB."""

    uri: str = Field(min_length=1, repr=False, description="Connection string.")
    database: str = Field(default="heimdall", min_length=1, description="Database.")
    collection: str = Field(default="responses", min_length=1, description="Collection.")
    ttl: DurationS = Field(default=30 * _DAY_S, gt=0, description="How long a response is kept.")
    timeout: DurationS = Field(default=0.5, gt=0, description="Deadline of an operation.")


class SyncStream(Params):
    """The Redis stream from which responses are copied to MongoDB."""

    key: str = Field(default="heimdall:responses:mongo_sync", min_length=1, description="Key of the stream.")
    consumer_group: str = Field(default="mongo-sync", min_length=1, description="Consumer group of the pickers.")
    max_len: Int = Field(default=1_000_000, gt=0, description="Entries at which the stream is trimmed.")
    batch_size: Int = Field(default=100, gt=0, description="Entries per read.")
    block_timeout: DurationS = Field(default=1.0, gt=0, description="How long a read waits.")
    claim_age: DurationS = Field(default=30.0, gt=0, description="Idle time after which an entry is taken over.")


class TieredStore(Params):
    """Responses in Redis, older ones in MongoDB."""

    redis: RedisStore = Field(description="First tier.")
    mongo: MongoStore | None = Field(default=None, description="Second tier.")
    stream: SyncStream = Field(default_factory=SyncStream, description="How responses get to the second tier.")

    @model_validator(mode="before")
    @classmethod
    def _check_redis(cls, document: object) -> object:
        # A key that does not exist is reported as such: it may be a misspelt `redis`.
        if isinstance(document, dict) and document.keys() <= {"redis", "mongo", "stream"} and document.get("redis") is None:
            raise ValueError("tieredConfig needs redis")
        return document


class StoreConfig(Params):
    """Where responses are kept; if both are given, in the tiered store."""

    in_memory_config: InMemoryStore | None = Field(default=None, description="In this process.")
    tiered_config: TieredStore | None = Field(default=None, description="In Redis and MongoDB.")

    @model_validator(mode="after")
    def _check_back_end(self) -> StoreConfig:
        if self.in_memory_config is None and self.tiered_config is None:
            raise ValueError("storeConfig needs inMemoryConfig or tieredConfig; leave it out to keep responses in memory")
        return self


class ResponsesStoreParams(Params):
    """Parameters of responses-store."""

    store_config: StoreConfig | None = Field(default=None, description="Where responses are kept; absent = in memory.")
    unknown_responses: Literal["refuse", "forward"] = Field(
        default="refuse",
        description="What happens to requests for a response or conversation that cannot be read: `refuse` answers 404, or 503 "
        "if the store cannot be reached; `forward` leaves them to the model server.",
    )
