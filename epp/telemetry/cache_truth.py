"""Cached prefixes as producers predict them, beside what the servers report: whether the picker knows what is cached where.

Of each response that reports cached tokens, for each producer of prefix matches. A prediction is a range: matches are counted
in blocks, of text as if each token had four bytes, and a prompt may be longer than what was looked up. What lies outside of it
for long is a mismatch, which is logged when it begins, changes or ends, and shown with its likely cause.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from epp.framework import log
from epp.framework.interfaces import CacheMismatch, ExplainsMismatch
from epp.framework.keys import PrefixMatch
from epp.framework.types import Endpoint, EndpointChange, EndpointId, Usage
from epp.telemetry.cache_causes import Facts, likely_cause
from epp.telemetry.catalogue import PREFIX
from epp.telemetry.instruments import Counter, Gauge, Histogram
from epp.telemetry.metrics import Metrics

_logger = log.get(__name__)

MEMORY = 32
"""Responses that a mean remembers, so that it follows a change within some hundred."""
ENOUGH = 20
"""Responses before anything is said."""
TELLING = 0.05
"""Share of a prompt, predicted or reported, from which a response tells something; prompts that are new to all tell nothing."""
NONE_AT_ALL = 0.02
"""Share that is no more than an accident."""
MISMATCH = 0.25
"""Mean share of a prompt by which prediction and report differ, from which that is a mismatch."""
AGREEMENT = 0.15
"""The same below which it is none any longer."""


class Prediction(NamedTuple):
    """What a producer expected of one response."""

    tokens: int
    lowest: float
    """Share of the prompt."""
    highest: float
    """Share of the prompt; 1 if all that was looked up is held, as what follows may be too."""

    @classmethod
    def of(cls, match: PrefixMatch | None, prompt_tokens: int) -> Prediction:
        """Of a prompt with so many tokens; no match is a prediction of nothing."""
        if match is None or not match.match_blocks or not match.total_blocks:
            return _NOTHING
        tokens = min(match.match_blocks * match.block_size_tokens, prompt_tokens)
        by_tokens, by_blocks = tokens / prompt_tokens, match.match_blocks / match.total_blocks
        return cls(tokens, min(by_tokens, by_blocks), max(by_tokens, by_blocks))


_NOTHING = Prediction(0, 0.0, 0.0)


@dataclass(slots=True)
class _Means:
    """Means over the last responses that told something."""

    responses: int = 0
    predicted: float = 0.0
    reported: float = 0.0
    too_many: float = 0.0
    """Share of a prompt that was predicted to be cached and was not."""
    too_few: float = 0.0

    def add(self, prediction: Prediction, reported: float) -> None:
        self.responses += 1
        weight = 1 / min(self.responses, MEMORY)
        self.predicted += weight * (prediction.highest - self.predicted)
        self.reported += weight * (reported - self.reported)
        self.too_many += weight * (max(0.0, prediction.lowest - reported) - self.too_many)
        self.too_few += weight * (max(0.0, reported - prediction.highest) - self.too_few)

    def mismatch(self, before: CacheMismatch | None) -> CacheMismatch | None:
        """What is wrong, if anything is."""
        if self.responses < ENOUGH:
            return None
        limit = MISMATCH if before is None else AGREEMENT
        if self.too_many >= limit:
            return CacheMismatch.NO_HITS if self.reported < NONE_AT_ALL else CacheMismatch.TOO_MANY
        if self.too_few >= limit:
            return CacheMismatch.UNFORESEEN if self.predicted < NONE_AT_ALL else CacheMismatch.TOO_FEW
        return None


@dataclass(slots=True)
class _Record:
    """What is known of one producer about one endpoint."""

    endpoint: Endpoint
    predicted: Counter
    reported: Counter
    state: Gauge
    chats: _Means = field(default_factory=_Means)
    others: _Means = field(default_factory=_Means)
    mismatch: CacheMismatch | None = None
    cause: str = ""
    block_tokens: int = 0

    @property
    def only_chats(self) -> bool:
        """Prompts that no template renders are predicted rightly."""
        return self.others.responses >= ENOUGH and self.others.mismatch(self.mismatch) is None


class CacheTruth:
    """Compares predictions with reports, and says where they differ for long. Implements ``FollowsEndpoints``.

    Args:
        metrics: where both are counted.
        producer: the plugin of a name, which may know more of a cause.
        engine_block_tokens: block size that the server of an endpoint tells; 0 = it does not.
    """

    def __init__(
        self,
        metrics: Metrics,
        producer: Callable[[str], object],
        engine_block_tokens: Callable[[EndpointId], int],
    ) -> None:
        self._metrics = metrics
        self._producer = producer
        self._engine_block_tokens = engine_block_tokens
        self._records: dict[EndpointId, dict[str, _Record]] = {}
        """By endpoint of the pool, by producer."""
        self._errors: dict[str, Histogram] = {}

    def observe(self, producer: str, endpoint: Endpoint, match: PrefixMatch | None, usage: Usage, *, is_chat: bool) -> int:
        """A response that tells how many tokens were cached.

        Args:
            producer: name of the plugin that predicted.
            endpoint: that served it.
            match: what was predicted for this endpoint; None = nothing.
            usage: with ``prompt_tokens`` and ``cached_tokens``.
            is_chat: a template renders the prompt.

        Returns:
            Tokens that were predicted to be cached.
        """
        cached = usage.cached_tokens or 0
        prediction = Prediction.of(match, usage.prompt_tokens)
        records = self._records.get(endpoint.id)
        if records is None:  # it has left the pool
            return prediction.tokens
        record = records.get(producer) or self._new_record(producer, endpoint, records)
        record.predicted.value += prediction.tokens
        record.reported.value += cached
        share = min(cached / usage.prompt_tokens, 1.0)
        if prediction.highest < TELLING and share < TELLING:
            return prediction.tokens
        self._errors[producer].observe(max(prediction.lowest - share, share - prediction.highest, 0.0))
        if match is not None:
            record.block_tokens = match.block_size_tokens
        (record.chats if is_chat else record.others).add(prediction, share)
        in_chats = record.chats.mismatch(record.mismatch)
        now = in_chats or record.others.mismatch(record.mismatch)
        if now is not record.mismatch:
            self._changed(producer, record, now, record.chats if in_chats else record.others)
        return prediction.tokens

    def endpoints_changed(self, change: EndpointChange) -> None:
        """Begin anew with an endpoint that moved, forget those that left."""
        for endpoint in change.removed:
            self._records.pop(endpoint.id, None)
        for endpoint in change.added:
            self._records[endpoint.id] = {}

    def page(self, endpoint_id: EndpointId) -> list[dict[str, object]]:
        """What is known of an endpoint, of each producer: part of ``/debug/endpoints``."""
        return [
            {
                "producer": producer,
                "responses": record.chats.responses + record.others.responses,
                "predictedTokens": record.predicted.value,
                "reportedTokens": record.reported.value,
                "mismatch": record.mismatch,
                "likelyCause": record.cause,
            }
            for producer, record in self._records.get(endpoint_id, {}).items()
        ]

    def _new_record(self, producer: str, endpoint: Endpoint, records: dict[str, _Record]) -> _Record:
        metrics = self._metrics
        labels = {"endpoint_name": endpoint.name, "namespace": endpoint.namespace, "plugin_name": producer}
        if producer not in self._errors:
            self._errors[producer] = metrics.histogram(f"{PREFIX}prefix_cache_prediction_error_ratio", plugin_name=producer)
        record = records[producer] = _Record(
            endpoint,
            metrics.counter(f"{PREFIX}prefix_cache_predicted_tokens_total", **labels),
            metrics.counter(f"{PREFIX}prefix_cache_reported_tokens_total", **labels),
            metrics.gauge(f"{PREFIX}prefix_cache_mismatch", **labels),
        )
        return record

    def _changed(self, producer: str, record: _Record, now: CacheMismatch | None, means: _Means) -> None:
        record.mismatch = now
        record.state.set(int(now is not None))
        record.cause = self._cause(producer, record, now) if now is not None else ""
        if now is None:
            _logger.info("cached prefixes are predicted rightly again", plugin=producer, endpoint=record.endpoint.id)
            return
        _logger.warning(
            "cached prefixes are predicted wrongly",
            plugin=producer,
            endpoint=record.endpoint.id,
            mismatch=now.value,
            predicted=round(means.predicted, 2),
            reported=round(means.reported, 2),
            likelyCause=record.cause,
        )

    def _cause(self, producer: str, record: _Record, mismatch: CacheMismatch) -> str:
        plugin = self._producer(producer)
        known = ""
        if isinstance(plugin, ExplainsMismatch):
            try:
                known = plugin.explain_mismatch(record.endpoint.id, mismatch)
            except Exception as error:  # noqa: BLE001 — a plugin's bug; the general causes are named
                _logger.error("a plugin cannot explain its mismatch", exc=error, plugin=producer)
        others = [
            r for by_producer in self._records.values() if (r := by_producer.get(producer)) is not None and r is not record
        ]
        judged = [r for r in others if max(r.chats.responses, r.others.responses) >= ENOUGH]
        facts = Facts(
            index_block_tokens=record.block_tokens,
            engine_block_tokens=self._engine_block_tokens(record.endpoint.id),
            only_chats=record.only_chats,
            only_here=bool(judged) and all(r.mismatch is None for r in judged),
        )
        return known or likely_cause(mismatch, facts)
