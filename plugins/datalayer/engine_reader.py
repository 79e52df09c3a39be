"""EngineReader: one metrics page by the mapping of one engine → EndpointMetrics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from epp.framework import log
from epp.framework.interfaces import Extraction
from epp.framework.prometheus_text import FamilyReader, Sample, SeriesSpec
from epp.framework.types import EndpointMetrics
from plugins.datalayer.engines import PROCESS_START, Engine
from plugins.datalayer.ranks import ranks_of

_logger = log.get(__name__)

MAX_FRACTION = 2.0
"""A little above 1 is rounding; above this it is another unit, in which every server would look full."""
_NO_MODELS: frozenset[str] = frozenset()


class EngineReader:
    """Reads the page of one kind of model server. Everything that can be compiled is compiled once.

    Args:
        engine: which series mean what.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        specs = (engine.queued, engine.running, *engine.kv_usage, engine.lora, engine.cache_info, engine.block_size)
        specs = (*specs, engine.num_blocks, *(spec for _, spec in engine.custom))
        names = dict.fromkeys([spec.name for spec in specs if spec is not None] + [PROCESS_START])
        self._families = {name: FamilyReader(name) for name in names}
        self.families = frozenset(self._families)
        """Names of the samples that are looked at."""
        self._warned_block_sizes = False

    def read(self, page: bytes, previous: EndpointMetrics) -> Extraction:
        """What the page says; nothing is new of a value that it does not give."""
        reading = _Reading(page, self._families, self.engine)
        engine = self.engine
        waiting = reading.count(engine.queued)
        running = reading.count(engine.running)
        usage = reading.fraction(engine.kv_usage)
        block_size, num_blocks = self._cache(reading)
        lora = reading.latest(engine.lora)
        attributes = reading.attributes(engine.custom, previous.attributes)
        if not reading.is_fruitful:
            return Extraction(previous, reading.problems)
        active, waiting_models, max_active = _NO_MODELS, _NO_MODELS, 0
        if lora is not None:
            active = _adapters(lora.labels.get("running_lora_adapters", ""))
            waiting_models = _adapters(lora.labels.get("waiting_lora_adapters", ""))
            parsed = reading.label_int(lora, "max_lora")
            max_active = previous.max_active_models if parsed is None else parsed
        metrics = EndpointMetrics(
            waiting_queue=previous.waiting_queue if waiting is None else waiting,
            running_requests=previous.running_requests if running is None else running,
            kv_cache_usage=previous.kv_cache_usage if usage is None else usage,
            active_models=active,
            waiting_models=waiting_models,
            max_active_models=max_active,
            cache_block_size=previous.cache_block_size if block_size is None else block_size,
            cache_num_blocks=previous.cache_num_blocks if num_blocks is None else num_blocks,
            attributes=attributes,
            started_s=reading.started_s(previous.started_s),
        )
        return Extraction(metrics, reading.problems, is_fresh=True)

    def _cache(self, reading: _Reading) -> tuple[int | None, int | None]:
        """(tokens per block, blocks); None = keep the previous value."""
        engine = self.engine
        block_sizes = reading.scalars(engine.block_size)
        num_blocks = reading.scalars(engine.num_blocks)
        block_size = self._smallest(block_sizes) if block_sizes else None
        blocks = sum(num_blocks) if num_blocks else None
        has_both = block_sizes and num_blocks
        info = [] if engine.cache_info is None or has_both else reading.infos(engine.cache_info)
        if info and not block_sizes:
            sizes = [reading.label_int(sample, engine.block_size_label) or 0 for sample in info]
            block_size = self._smallest(sizes)
        if info and not num_blocks:
            counts = [reading.label_int(sample, engine.num_blocks_label) for sample in info]
            blocks = None if None in counts else sum(count or 0 for count in counts)
        if not info and not block_sizes and not num_blocks:
            reading.miss_cache()
        return block_size, blocks

    def _smallest(self, sizes: list[int]) -> int:
        if len(set(sizes)) > 1 and not self._warned_block_sizes:
            self._warned_block_sizes = True
            _logger.warning("engines of one endpoint have different block sizes, the smallest counts", block_sizes=sizes)
        return min(sizes)


class _Reading:
    """One page while it is read."""

    __slots__ = ("_engine", "_families", "_malformed", "_page", "_samples", "is_fruitful", "problems")

    def __init__(self, page: bytes, families: Mapping[str, FamilyReader], engine: Engine) -> None:
        self._page = page
        self._families = families
        self._engine = engine
        self._samples: dict[str, list[Sample]] = {}
        self._malformed: set[str] = set()
        self.problems: list[str] = []
        self.is_fruitful = False
        """Something was read."""

    def count(self, spec: SeriesSpec | None) -> int | None:
        """A number of things, summed over ranks; None = not read."""
        if spec is None:
            return None
        counts = self._counts(spec, self._required(spec))
        return sum(counts) if counts else None

    def fraction(self, alternatives: tuple[SeriesSpec, ...]) -> float | None:
        """The mean over ranks of the first series that exists, each within [0, 1]; None = not read."""
        if not alternatives:
            return None
        found = next((ranks for ranks in map(self.ranks, alternatives) if ranks), None)
        if found is None:
            self._miss(alternatives[0])
            return None
        values = self._finite(alternatives[0], found)
        if values and max(values) > MAX_FRACTION:
            self.problems.append(f"{alternatives[0]} is {max(values):g}; a fraction from 0 to 1 is needed, not a percentage")
            return None
        if not values:
            return None
        return sum(min(max(value, 0.0), 1.0) for value in values) / len(values)

    def scalars(self, spec: SeriesSpec | None) -> list[int]:
        """Integers of all ranks of a series that may be missing; [] = not read."""
        return self._counts(spec, self.ranks(spec)) if spec is not None else []

    def latest(self, spec: SeriesSpec | None) -> Sample | None:
        """The series with the greatest value, which is the time of its last change; the first of equal ones."""
        best: Sample | None = None
        for sample in self._matching(spec) if spec is not None else ():
            if sample.value > (best.value if best is not None else -1.0):
                best = sample
        if best is not None:
            self.is_fruitful = True
        return best

    def attributes(self, custom: tuple[tuple[str, SeriesSpec], ...], previous: Mapping[str, object]) -> Mapping[str, object]:
        """``previous`` with the custom metrics that could be read."""
        if not custom:
            return previous
        read: dict[str, object] = {}
        for key, spec in custom:
            values = self._finite(spec, self._required(spec))
            total = sum(values)
            if not math.isfinite(total):
                self.problems.append(f"{spec} adds up to {total}, not a number")
            elif values:
                read[key] = total
        return MappingProxyType({**previous, **read})

    def started_s(self, known_s: float | None) -> float | None:
        """When the server began: of several engines the one that began last, and never earlier than is known.

        Not every server tells. Several processes behind one page or one address each tell their own, which says nothing of a
        restart: of a page nothing is believed then, and behind an address their starts are learned once.
        """
        try:
            samples = self._families[PROCESS_START].read(self._page)
        except ValueError:
            return known_s
        if not samples:
            return known_s
        ranks = ranks_of(samples, self._engine.rank_labels)
        latest_s = max(map(_value, ranks.samples))
        if ranks.problem or not math.isfinite(latest_s):
            return known_s
        return latest_s if known_s is None or latest_s > known_s else known_s

    def label_int(self, sample: Sample, label: str) -> int | None:
        """An integer in a label of an info series; None = missing, empty or no integer (which is a problem)."""
        text = sample.labels.get(label, "")
        if not text:
            return None
        try:
            value = int(text)
        except ValueError:
            self.problems.append(f"label {label} is {text!r}, not an integer")
            return None
        self.is_fruitful = True
        return max(value, 0)

    def miss_cache(self) -> None:
        """Neither series nor labels tell the cache configuration: a problem where only one way exists to tell."""
        engine = self._engine
        gauges = [spec for spec in (engine.block_size, engine.num_blocks) if spec is not None]
        if engine.cache_info is not None and not gauges:
            self._miss(engine.cache_info)
        elif engine.cache_info is None:
            for spec in gauges:
                self._miss(spec)

    def ranks(self, spec: SeriesSpec) -> list[Sample]:
        """One matching sample for each rank; [] = the series is missing."""
        return self._ranks(spec, ())

    def infos(self, spec: SeriesSpec) -> list[Sample]:
        """The same of the info series, whose labels are values."""
        return self._ranks(spec, (self._engine.block_size_label, self._engine.num_blocks_label))

    def _ranks(self, spec: SeriesSpec, payload: tuple[str, ...]) -> list[Sample]:
        ranks = ranks_of(self._matching(spec), self._engine.rank_labels, payload)
        if ranks.problem:
            self.problems.append(f"{spec} {ranks.problem}")
        return ranks.samples

    def _required(self, spec: SeriesSpec) -> list[Sample]:
        ranks = self.ranks(spec)
        if not ranks:
            self._miss(spec)
        return ranks

    def _miss(self, spec: SeriesSpec) -> None:
        if spec.name not in self._malformed:
            self.problems.append(f"{spec} is not on the page")

    def _matching(self, spec: SeriesSpec) -> list[Sample]:
        samples = self._samples.get(spec.name)
        if samples is None:
            samples = self._samples[spec.name] = self._read(spec.name)
        return [sample for sample in samples if spec.matches(sample.labels)] if spec.labels else samples

    def _read(self, name: str) -> list[Sample]:
        try:
            return self._families[name].read(self._page)
        except ValueError as error:
            self.problems.append(str(error))
            self._malformed.add(name)
            return []

    def _counts(self, spec: SeriesSpec, samples: list[Sample]) -> list[int]:
        counts = []
        for value in self._finite(spec, samples):
            if value < 0:
                self.problems.append(f"{spec} is {value:g}; a count cannot be negative")
            counts.append(max(int(value), 0))
        return counts

    def _finite(self, spec: SeriesSpec, samples: list[Sample]) -> list[float]:
        """The values; [] if one of them is no number."""
        values = [sample.value for sample in samples]
        if not all(map(math.isfinite, values)):
            wrong = next(value for value in values if not math.isfinite(value))
            self.problems.append(f"{spec} is {wrong}, not a number")
            return []
        if values:
            self.is_fruitful = True
        return values


def _value(sample: Sample) -> float:
    return sample.value


@lru_cache(maxsize=1024)
def _adapters(text: str) -> frozenset[str]:
    return frozenset(name for name in map(str.strip, text.split(",")) if name)
