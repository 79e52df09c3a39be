"""The last decisions that were kept, in constant memory.

A record is encoded when the decision is made, so that what it takes is known to the byte and nothing of the request is held by
it; what became of the request is added when its response is over. Beyond the limit the oldest records go.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from typing import Any

import orjson

from epp.telemetry.decision_record import DecisionRecord, OutcomeRecord, completed

LIMIT_BYTES = 16 * 1024 * 1024
"""Some 4,000 decisions among ten endpoints, or 300 among a hundred with five scorers."""
OVERHEAD_BYTES = 1024
"""What a kept decision takes beside its encoded record: strings by which it is found, its outcome."""


class KeptDecision:
    """A decision in the ring."""

    __slots__ = ("_data", "at_s", "error", "model", "number", "outcome", "picked", "request_id", "status", "why")

    def __init__(self, number: int, record: DecisionRecord) -> None:
        self.number = number
        """Counts up from 1; tells decisions with the same request id apart."""
        self.request_id = record.request_id
        self.why = record.why
        self.at_s = record.at_s
        self.model = record.model
        self.status = record.status
        self.error = record.error
        self.picked = tuple(record.picked)
        self.outcome: OutcomeRecord | None = record.outcome
        """Set once the response is over."""
        # Copied, because the encoder leaves its whole buffer, up to ten times as large, behind what it returns.
        self._data = bytes(memoryview(orjson.dumps(record)))

    @property
    def size_bytes(self) -> int:
        """What it takes."""
        return len(self._data) + OVERHEAD_BYTES

    @property
    def is_bad(self) -> bool:
        """It was refused, or its response failed or was cut."""
        outcome = self.outcome
        return self.status >= 400 or bool(self.error) or (outcome is not None and not outcome.is_good)

    def as_json(self) -> dict[str, object]:
        """The whole record as JSON can hold it."""
        shown: dict[str, Any] = orjson.loads(self._data)
        shown["number"] = self.number
        shown["outcome"] = asdict(self.outcome) if self.outcome is not None else None
        return completed(shown)

    def summary(self) -> dict[str, object]:
        """One line of a list."""
        outcome = self.outcome
        return {
            "number": self.number,
            "at_s": self.at_s,
            "request_id": self.request_id,
            "why": self.why.value,
            "model": self.model,
            "picked": list(self.picked),
            "status": self.status or (outcome.status if outcome is not None else 0),
            "error": self.error,
            "cause": outcome.cause if outcome is not None else "",
        }


class DecisionRing:
    """Keeps decisions, the newest ones that fit.

    Args:
        limit_bytes: of all together; a single record that is larger is kept until the next one comes.
    """

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._kept: deque[KeptDecision] = deque()
        self.size_bytes = 0
        """What they take."""
        self.count = 0
        """Decisions kept so far, those that are gone included."""

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, record: DecisionRecord) -> KeptDecision:
        """Keep a decision."""
        self.count += 1
        decision = KeptDecision(self.count, record)
        self._kept.append(decision)
        self.size_bytes += decision.size_bytes
        while self.size_bytes > self._limit_bytes and len(self._kept) > 1:
            self.size_bytes -= self._kept.popleft().size_bytes
        return decision

    def newest(self) -> Iterator[KeptDecision]:
        """All, the newest first; not to be iterated while decisions are added."""
        return reversed(self._kept)

    def numbered(self, number: int) -> KeptDecision | None:
        """The one of this number, if it is still kept; numbers are without gaps."""
        index = number - self._kept[0].number if self._kept else -1
        return self._kept[index] if 0 <= index < len(self._kept) else None

    def of(self, request_id: str, most: int = 20) -> list[KeptDecision]:
        """Those of a request, the newest first: ids come from clients and may repeat."""
        return list(islice((kept for kept in self.newest() if kept.request_id == request_id), most))
