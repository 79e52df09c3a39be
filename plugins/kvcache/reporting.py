"""Metrics of the precise prefix cache: counted anywhere, written on the event loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from epp.framework import log
from epp.framework.handle import PluginMetrics
from plugins.kvcache.block_index import Match
from plugins.kvcache.event_index import EventIndex, IndexCounts
from plugins.tokenization.pool import Timing

if TYPE_CHECKING:
    from plugins.kvcache.subscriber import EventReceiver

_logger = log.get(__name__)

PREFIX = "llm_d_epp_kv_cache_"
INTERVAL_S = 1.0
"""Counts of the other thread are written this often."""


class Reporting:
    """Writes metrics.

    Args:
        metrics: of the picker.
        plugin: name of the instance.
        with_index: write those of the index too.
    """

    def __init__(self, metrics: PluginMetrics, plugin: str, *, with_index: bool) -> None:
        self._metrics = metrics
        self._plugin = plugin
        self._with_index = with_index
        self._written: dict[tuple[str, tuple[str, ...]], float] = {}
        self.lookups = 0
        self.hits = 0
        if with_index:
            self._lookups = metrics.counter(f"{PREFIX}index_lookup_requests_total")
            self._hits = metrics.counter(f"{PREFIX}index_lookup_hits_total")
            self._max_hits = metrics.counter(f"{PREFIX}index_max_pod_hit_count_total")
            self._latency_s = metrics.histogram(f"{PREFIX}index_lookup_latency_seconds")

    # ── events of the event loop ──

    def looked_up(self, found: Sequence[Mapping[str, Match]], elapsed_s: float) -> None:
        """A request was looked up, prompt by prompt."""
        best = sum(max((match.blocks for match in of_prompt.values()), default=0) for of_prompt in found)
        self.lookups += 1
        self.hits += best
        if self._with_index:
            self._lookups.inc()
            self._hits.inc(best)
            self._max_hits.inc(best)
            self._latency_s.observe(elapsed_s)

    def tokenized(self, back_end: str, tokens: int, timing: Timing) -> None:
        """A prompt was tokenized."""
        metrics = self._metrics
        metrics.counter(f"{PREFIX}tokenization_tokenized_tokens_total", tokenizer=back_end).inc(tokens)
        metrics.histogram(f"{PREFIX}tokenization_tokenization_latency_seconds", tokenizer=back_end).observe(timing.tokenize_s)
        if timing.render_s is not None:
            family = f"{PREFIX}tokenization_render_chat_template_latency_seconds"
            metrics.histogram(family, tokenizer=back_end).observe(timing.render_s)

    def not_tokenized(self, back_end: str) -> None:
        """A prompt could not be tokenized."""
        self._metrics.counter(f"{PREFIX}tokenization_failures_total", tokenizer=back_end).inc()

    def lookup_failed(self) -> None:
        """The index could not be asked."""
        self._metrics.counter(f"{PREFIX}index_errors_total").inc()

    # ── counts of the other thread ──

    def write(self, index: EventIndex, receiver: EventReceiver) -> None:
        """Bring counters and gauges up to date."""
        counts, received = index.counts(), receiver.counts()
        totals = counts.totals
        if self._with_index:
            self._count("index_admissions_total", totals.get("admissions", 0))
            self._count("index_evictions_total", totals.get("evictions", 0))
            self._metrics.gauge(f"{PREFIX}index_keys").set(counts.keys)
        self._count("events_dedup_removed_hashes_suppressed_total", totals.get("removals_suppressed", 0))
        self._count("events_dedup_removed_hashes_forwarded_total", totals.get("removals_forwarded", 0))
        self._count("events_unknown_parent_total", totals.get("unknown_parent", 0))
        self._count("events_sequence_gaps_total", received.gaps)
        self._count("events_missed_messages_total", received.missed)
        self._count("events_publisher_restarts_total", received.restarts)
        self._count("events_replays_total", received.replays, result="done")
        self._count("events_replays_total", received.replays_failed, result="failed")
        for (what, kind, reason), count in counts.skipped.items():
            self._count(f"events_{what}_skipped_total", count, cache_kind=kind, reason=reason)
        for reason, count in counts.decode_errors.items():
            self._count("events_decode_errors_total", count, reason=reason)
        for reason, count in received.dropped.items():
            self._count("events_messages_dropped_total", count, reason=reason)
        for pod, count in received.received.items():
            self._count("events_messages_received_total", count, pod_identifier=pod)
        for pod, count in received.reconnections.items():
            if count:
                self._count("events_subscriber_reconnections_total", count, pod_identifier=pod)
        for (pod, operation), count in received.errors.items():
            self._count("events_zmq_errors_total", count, pod_identifier=pod, operation=operation)
        self._metrics.gauge(f"{PREFIX}events_orphans").set(counts.orphans)
        self._metrics.gauge(f"{PREFIX}events_active_subscribers").set(received.subscribers)
        self._metrics.gauge(f"{PREFIX}events_receiving", plugin_name=self._plugin).set(int(not receiver.problem))
        self._count("events_receiver_restarts_total", receiver.restarts, plugin_name=self._plugin)

    def write_failures(self, total: int) -> None:
        """So many messages were not written to a shared index."""
        self._count("index_errors_total", total)

    def log(self, counts: IndexCounts) -> None:
        """One line with the counters of the index."""
        _logger.info(
            "kv-block index",
            plugin=self._plugin,
            keys=counts.keys,
            admissions=counts.totals.get("admissions", 0),
            evictions=counts.totals.get("evictions", 0),
            lookups=self.lookups,
            hits=self.hits,
        )

    def _count(self, name: str, total: float, **labels: str) -> None:
        """Write how far a count has come; one that fell began anew."""
        key = name, tuple(labels.values())
        before = self._written.get(key, 0)
        self._written[key] = total
        grown = total - before if total >= before else total
        if grown:
            self._metrics.counter(PREFIX + name, **labels).inc(grown)
