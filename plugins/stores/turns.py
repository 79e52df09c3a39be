"""What is kept: turns (a request with its response) and conversations, as JSON documents."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TypeVar, cast

import orjson

from epp.framework.types import Json
from plugins.stores.items import Item, shown

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Turn:
    """One response and what it answered. Each turn is kept alone and names the one before it."""

    id: str
    """Chosen by the model server."""
    previous_response_id: str
    """"" = none."""
    conversation: str
    """Id of the conversation it belongs to; "" = none."""
    model: str
    """As its client named it."""
    created_at: float
    input: list[Json]
    """The request's own items, without those of earlier turns."""
    output: list[Json]
    tenant: str
    """"" = its client named none."""
    response: Item
    """The response object, its output left out."""

    def encode(self) -> bytes:
        """The document to keep."""
        return orjson.dumps(asdict(self))

    @classmethod
    def decode(cls, document: bytes) -> Turn | None:
        """What was kept; None if it is no turn."""
        return _decode(cls, document)

    @property
    def items(self) -> list[Json]:
        """What a later turn must know of this one."""
        return [*self.input, *self.output]

    def answer(self) -> Item:
        """The response object as it was answered, with what the picker had to take from the request."""
        previous = {"previous_response_id": self.previous_response_id} if self.previous_response_id else {}
        conversation = {"conversation": {"id": self.conversation}} if self.conversation else {}
        return {**self.response, "output": self.output, "model": self.model, "store": True, **previous, **conversation}

    def shown_input(self) -> list[Item]:
        """Its own input for listings; ids do not change."""
        return [shown(item, f"msg_{self.id.partition('_')[2] or self.id}_{i}") for i, item in enumerate(self.input)]


@dataclass(frozen=True, slots=True)
class Conversation:
    """Items that belong together, whatever responses they come from."""

    id: str
    created_at: float
    tenant: str
    metadata: Item = field(default_factory=dict)
    items: list[Item] = field(default_factory=list)
    """Oldest first, each with an id."""
    object: str = "conversation"

    def encode(self) -> bytes:
        """The document to keep."""
        return orjson.dumps(asdict(self))

    @classmethod
    def decode(cls, document: bytes) -> Conversation | None:
        """What was kept; None if it is no conversation."""
        return _decode(cls, document)

    def answer(self) -> Item:
        """The conversation object of the API."""
        return {"id": self.id, "object": "conversation", "created_at": int(self.created_at), "metadata": self.metadata}


def _decode(cls: type[T], document: bytes) -> T | None:
    try:
        return cls(**cast("Item", orjson.loads(document)))
    except (orjson.JSONDecodeError, TypeError):
        return None
