"""The ``/metrics`` page of a simulated server, with vLLM's names.

A page is asked for twenty times a second by each scheduler, so nothing is rendered twice: constant families once at the start,
the histograms at most once a second, and the whole page only when a value moved.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from epp.simulate import catalogue
from epp.simulate.engine import Engine
from epp.simulate.exposition import HistogramText, constant, counter_template, gauge_template, header, number, quoted, series
from epp.simulate.options import MetricsPage, ServerOptions
from epp.simulate.statistics import Histogram

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_HISTOGRAM_AGE_S = 1.0
_MAX_LORA_SERIES = 50


class MetricsRenderer:
    """The page of one engine.

    Args:
        options: model names, adapters, which page.
        engine: read at each call; the caller has brought it up to date.
        wall_clock: unix time, for adapters and for when counters were created.
        clock: monotonic seconds, for the age of the histograms.
    """

    def __init__(
        self,
        options: ServerOptions,
        engine: Engine,
        wall_clock: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._labels = {"engine": "0", "model_name": options.models[0]}
        self._lora = _LoraSeries(engine, wall_clock) if options.lora else None
        self._page: tuple[object, bytes] = (None, b"")
        self._rendered: tuple[int, float, str] = (-1, 0.0, "")
        created_s = wall_clock()
        gauges = catalogue.READ_BY_SCHEDULERS
        counters = [*catalogue.PREFIX_COUNTERS]
        is_full = options.metrics_page is MetricsPage.FULL
        if is_full:
            counters += catalogue.COUNTERS
        self._reads = [read for _, _, read in (*gauges, *counters)]
        parts = [gauge_template(name, text, self._labels) for name, text, _ in gauges]
        parts += [counter_template(name, text, [self._labels], created_s) for name, text, _ in counters]
        if is_full:
            parts.append(self._success_counter(created_s))
        parts.append(quoted(self._cache_config(engine, is_full)))
        self._template = "".join(parts) if is_full else _without_help("".join(parts))
        self._start, self._end = "", ""
        self._histograms: list[tuple[HistogramText, Histogram]] = []
        if is_full:
            self._prepare_full(created_s)

    def page(self) -> bytes:
        """The page of now; the same object while nothing has changed."""
        values = tuple(float(read(self._engine)) for read in self._reads)
        lora = self._lora.text() if self._lora else ""
        histograms = self._histogram_text()
        key = (values, lora, self._rendered[:2])
        if key != self._page[0]:
            text = self._start + self._template % values + lora + histograms + self._end
            self._page = (key, text.encode())
        return self._page[1]

    def _success_counter(self, created_s: float) -> str:
        reasons = [{**self._labels, "finished_reason": reason} for reason in catalogue.FINISHED_REASONS]
        self._reads += [_ended(reason) for reason in catalogue.FINISHED_REASONS]
        return counter_template("vllm:request_success", "Count of successfully processed requests.", reasons, created_s)

    @staticmethod
    def _cache_config(engine: Engine, is_full: bool) -> str:
        options = engine.options
        labels = {"block_size": str(options.block_size), "num_gpu_blocks": str(options.kv_blocks), "engine": "0"}
        if is_full:
            labels |= catalogue.CACHE_CONFIG
        return constant("vllm:cache_config_info", "gauge", "Information of the LLMEngine CacheConfig", [(labels, 1)])

    def _prepare_full(self, created_s: float) -> None:
        statistics = self._engine.statistics
        self._start = "".join(
            constant(name, kind, text, [({}, created_s)] if name == catalogue.PROCESS_START else samples)
            for name, kind, text, samples in catalogue.PROCESS
        )
        for name, text, select in catalogue.HISTOGRAMS:
            histogram = select(statistics)
            self._histograms.append((HistogramText(name, text, self._labels, histogram.bounds, created_s), histogram))
        quiet = [
            HistogramText(name, text, self._labels, bounds, created_s).render(Histogram(bounds))
            for name, text, bounds in catalogue.QUIET_HISTOGRAMS
        ]
        self._end = "".join(quiet) + _http_families(created_s)

    def _histogram_text(self) -> str:
        if not self._histograms:
            return ""
        revision, rendered_s, text = self._rendered
        now_s = self._clock()
        statistics = self._engine.statistics
        if revision == statistics.revision or (revision >= 0 and now_s - rendered_s < _HISTOGRAM_AGE_S):
            return text
        text = "".join(drawn.render(histogram) for drawn, histogram in self._histograms)
        self._rendered = (statistics.revision, now_s, text)
        return text


class _LoraSeries:
    """``vllm:lora_requests_info``: one series for each combination of adapters that was ever seen, its value the time when it
    last held. Readers take the latest.
    """

    def __init__(self, engine: Engine, wall_clock: Callable[[], float]) -> None:
        self._engine = engine
        self._wall_clock = wall_clock
        self._seen: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._last_s = 0.0

    def text(self) -> str:
        """The family, with the adapters of now."""
        combination = (",".join(self._engine.running_adapters), ",".join(self._engine.waiting_adapters))
        latest = next(reversed(self._seen), None)
        if combination != latest or any(combination):
            self._last_s = max(self._wall_clock(), self._last_s + 1e-3)
            self._seen[combination] = self._last_s
            self._seen.move_to_end(combination)
        if len(self._seen) > _MAX_LORA_SERIES:
            self._seen.popitem(last=False)
        max_lora = str(self._engine.options.max_lora)
        samples = [
            ({"max_lora": max_lora, "running_lora_adapters": running, "waiting_lora_adapters": waiting}, at_s)
            for (running, waiting), at_s in self._seen.items()
        ]
        return constant("vllm:lora_requests_info", "gauge", "Running stats on lora requests.", samples)


def _without_help(text: str) -> str:
    """The small page has only what a reader needs: neither help nor creation times."""
    lines = text.splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("# HELP ") and "_created" not in line)


def _ended(reason: str) -> Callable[[Engine], float]:
    return lambda engine: engine.statistics.ended_by_reason[reason]


def _http_families(created_s: float) -> str:
    """What the web framework of a vLLM server shows; it does not move."""
    handlers = catalogue.HTTP_HANDLERS
    methods = [
        {"handler": handler, "method": "POST" if handler.endswith(("completions", "messages")) else "GET"}
        for handler in handlers
    ]
    totals = [({**labels, "status": "2xx"}, 0.0) for labels in methods]
    parts = [
        constant("http_requests_total", "counter", "Total number of requests by method, status and handler.", totals),
        constant("http_requests_created", "gauge", "Total number of requests by method, status and handler.",
                 [(labels, created_s) for labels, _ in totals]),
    ]  # fmt: skip
    for name, text in (
        ("http_request_size_bytes", "Content length of incoming requests by handler. Only value of header is respected."),
        ("http_response_size_bytes", "Content length of outgoing responses by handler. Only value of header is respected."),
    ):
        sizes = [({"handler": handler}, 0.0) for handler in handlers]
        lines = [f"{series(name + end, labels)} {number(0)}\n" for labels, _ in sizes for end in ("_count", "_sum")]
        parts += [header(name, "summary", text), *lines]
    fine = HistogramText(
        "http_request_duration_highr_seconds",
        "Latency with many buckets but no API specific labels. Made for more accurate percentile calculations.",
        {}, catalogue.HTTP_FINE_BOUNDS, created_s,
    )  # fmt: skip
    parts.append(fine.render(Histogram(catalogue.HTTP_FINE_BOUNDS)))
    coarse = [
        HistogramText("http_request_duration_seconds", "", labels, catalogue.HTTP_BOUNDS, created_s).samples(
            Histogram(catalogue.HTTP_BOUNDS)
        )
        for labels in methods
    ]
    text = "Latency with only few buckets by handler. Made to be only used if aggregation by handler is important."
    return "".join([*parts, header("http_request_duration_seconds", "histogram", text), *coarse])
