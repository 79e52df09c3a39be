"""A replay: times, caches, metrics and hooks are those of the real process; the same again is the same again."""

from __future__ import annotations

import asyncio
import random
from dataclasses import asdict, replace
from typing import Any

import pytest

from epp.config.instantiate import instantiate
from epp.demo.data_files import data_path
from epp.framework.candidates import Candidates
from epp.framework.interfaces import HOOK_ROLES, Role
from epp.framework.keys import reading
from epp.framework.registry import Reads
from epp.framework.types import InferenceRequest
from epp.pool.build import PipelineBuilder
from epp.process.runtime import TaskRuntime
from epp.replay import run as run_module
from epp.replay.bound import bound
from epp.replay.figures import figures
from epp.replay.run import ReplayError, Run, replay
from epp.replay.trace import read_trace
from epp.scheduling.scheduler import Scheduler
from epp.simulate.driver import EngineDriver
from epp.telemetry.metrics import Metrics
from plugins.prefix import twins
from tests.config.doubles import plugin_type
from tests.replay.building import LOAD, RANDOM, chat_record, config, options, run, steady, tokens_record
from tests.replay.plugin_doubles import Call, Diary, registry_with
from tests.unit.scheduling.doubles import Reports


def told(result: Run) -> list[dict[str, Any]]:
    return [asdict(replace(outcome, choice=None)) for outcome in result.outcomes]


def test_a_request_alone_takes_what_the_cost_model_says() -> None:
    """1,024 tokens at 60 us, 40 ms for the first token, 10 ms for each other one."""
    (outcome,) = run([tokens_record(0, [1, 2], output=8)]).outcomes
    assert (outcome.status, outcome.prompt_tokens, outcome.cached_tokens, outcome.output_tokens) == (200, 1024, 0, 8)
    assert outcome.ttft_s == pytest.approx(0.06144 + 0.040)
    assert outcome.latency_s == pytest.approx(0.06144 + 0.040 + 7 * 0.010)
    assert (outcome.queued_s, outcome.held_s) == (0.0, 0.0)


def test_a_cached_prefix_costs_nothing() -> None:
    first, second = run([tokens_record(0, [1, 2]), tokens_record(1000, [1, 2, 3])], around=options(servers=1)).outcomes
    assert (first.cached_tokens, second.cached_tokens) == (0, 1024)
    assert first.ttft_s == pytest.approx(1024 * 60e-6 + 0.040)
    assert second.ttft_s == pytest.approx(512 * 60e-6 + 0.040)


def test_time_may_be_scaled() -> None:
    records = [tokens_record(10_000, [1]), tokens_record(14_000, [2])]
    result = run(records, around=replace(options(), time_scale=0.5))
    assert [outcome.at_s for outcome in result.outcomes] == [0.0, 2.0]


@pytest.mark.parametrize("document", [LOAD, RANDOM], ids=["load", "random"])
def test_the_same_seed_gives_the_same_result(document: str) -> None:
    records = steady(200)
    first = run(records, document)
    assert told(run(records, document)) == told(first)
    assert told(run(records, document, explain=True)) == told(first), "looking at decisions does not change them"
    assert told(run(records, document, options(seed=1))) != told(first)
    assert all(outcome.is_served for outcome in first.outcomes)
    assert {outcome.server for outcome in first.outcomes} == {0, 1, 2}


# ── the real decisions ──


def test_picks_are_those_of_the_scheduler_that_serve_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every decision is made again, on the same requests and candidates, by a pipeline built apart from any replay."""
    seen: list[tuple[InferenceRequest, Candidates, str, tuple[float, ...]]] = []
    schedule = Scheduler.schedule

    def watched(self: Scheduler, request: InferenceRequest, candidates: Candidates, record: Any = None) -> Any:
        result = schedule(self, request, candidates, record)
        run = result.profiles[result.primary]
        assert run is not None
        seen.append((request, candidates, result.targets[0].name, tuple(run.totals)))
        return result

    document = LOAD.replace("{type: active-request-scorer}", "{type: running-requests-size-scorer}").replace(
        "pluginRef: active-request-scorer", "pluginRef: running-requests-size-scorer"
    )
    monkeypatch.setattr(Scheduler, "schedule", watched)
    result = run(steady(300, every_ms=15), document)
    monkeypatch.undo()
    pipeline = PipelineBuilder(instantiate(config(document)), Metrics(), Reports(), TaskRuntime().spawn).build()
    assert len(seen) == len(result.outcomes) == 300
    for (request, candidates, picked, totals), outcome in zip(seen, result.outcomes, strict=True):
        again = pipeline.scheduler.schedule(request, candidates).profiles["default"]
        assert again is not None
        assert tuple(again.totals) == totals
        best = [endpoint.name for endpoint, total in zip(again.candidates, totals, strict=True) if total == max(totals)]
        assert picked in best
        assert outcome.server is not None
        assert picked == result.servers[outcome.server]
    assert len({totals for *_, totals in seen}) > 20, "load made a difference"


@pytest.mark.parametrize("interval_s", [0.05, 5.0])
def test_metrics_are_as_stale_as_their_interval_makes_them(monkeypatch: pytest.MonkeyPatch, interval_s: float) -> None:
    ages: list[float] = []
    schedule = Scheduler.schedule

    def watched(self: Scheduler, request: InferenceRequest, candidates: Candidates, record: Any = None) -> Any:
        now_s = asyncio.get_running_loop().time()
        ages.extend(now_s - updated_s for updated_s in candidates.updated_s if updated_s is not None)
        assert None not in candidates.updated_s, "each server was read before the first request"
        return schedule(self, request, candidates, record)

    monkeypatch.setattr(Scheduler, "schedule", watched)
    run(steady(300, every_ms=67), around=replace(options(), refresh_interval_s=interval_s))
    assert min(ages) >= 0
    assert 0.8 * interval_s < max(ages) <= 1.25 * interval_s + 0.06, "the first interval may be a quarter longer"


def test_hooks_are_called_in_their_order_and_at_their_times() -> None:
    calls: list[Call] = []
    types = registry_with(
        calls, tuple(HOOK_ROLES - {Role.DIRECT_RESPONDER, Role.BODY_REWRITER, Role.SCREENER, Role.REQUEST_HEADER})
    )
    run([tokens_record(0, [1, 2], output=8)], "plugins: [{type: diary}]\n", types=types)
    begun_s = calls[0][1]
    assert [what for what, _ in calls[:-1]] == ["produce", "admit", "pre_request", "received 200", "streaming", "complete"]
    times = [at_s - begun_s for _, at_s in calls[:-1]]
    assert times[:3] == [0, 0, 0]
    assert times[3:] == pytest.approx([0.10144, 0.10144, 0.17144], abs=0.002)
    usage, ttft_s = calls[-1]
    assert "prompt_tokens=1024, completion_tokens=8, total_tokens=1032, cached_tokens=0" in usage
    assert ttft_s == pytest.approx(0.10144)


def test_every_chunk_is_told_to_those_who_read_them() -> None:
    calls: list[Call] = []
    types = registry_with(calls, (Role.RESPONSE_STREAMING,), reads=Reads(response_chunks=True))
    run([tokens_record(0, [1], output=8), chat_record(0, "not streamed")][:1], "plugins: [{type: diary}]\n", types=types)
    assert [what for what, _ in calls] == ["streaming"] * 8


def test_a_plugin_that_waits_holds_its_request_for_that_time() -> None:
    class Waits(Diary):
        async def produce(self, request: Any, candidates: Any) -> None:  # type: ignore[override]
            await asyncio.sleep(0.25)

    types = registry_with([], (Role.PRE_REQUEST,))
    types.register(plugin_type("waits", Role.DATA_PRODUCER, factory=lambda context, params: Waits(context, [])))
    (outcome,) = run([tokens_record(0, [1, 2])], "plugins: [{type: waits}]\n", types=types).outcomes
    assert outcome.held_s == pytest.approx(0.25)
    assert outcome.ttft_s == pytest.approx(0.25 + 0.10144)


# ── real requests ──


def test_conversations_share_their_beginning() -> None:
    text = "once upon a time there was a request " * 40
    first, second, salted = run(
        [chat_record(0, text), chat_record(1, text + "and another"), chat_record(2, text, body={"cache_salt": "s"})],
        around=options(servers=1),
    ).outcomes
    assert first.cached_tokens == salted.cached_tokens == 0
    assert second.cached_tokens > 0.9 * first.prompt_tokens


def test_several_prompts_and_choices() -> None:
    body = {"model": "m", "prompt": ["a" * 64, "b" * 128], "n": 3}
    (outcome,) = run([{"time_s": 0, "path": "/v1/completions", "body": body, "output_tokens": 5}]).outcomes
    assert (outcome.prompt_tokens, outcome.output_tokens) == (16 + 32, 2 * 3 * 5)


def test_embeddings_have_no_first_token() -> None:
    body = {"model": "m", "input": "x" * 400}
    (outcome,) = run([{"time_s": 0, "path": "/v1/embeddings", "body": body, "output_tokens": 0}]).outcomes
    assert (outcome.status, outcome.prompt_tokens, outcome.output_tokens, outcome.ttft_s) == (200, 100, 0, None)
    assert outcome.latency_s == pytest.approx(0.006 + 0.040)


@pytest.mark.parametrize(
    ("record", "status", "problem"),
    [
        (tokens_record(0, range(10)), 400, "prompt and answer are longer than the 4096 tokens that a server has room for"),
        ({**chat_record(0, "x"), "body": '{"model":'}, 400, "error unmarshaling request bodyMap"),
        (chat_record(0, "x", body={"messages": "x"}), 400, "messages"),
        ({**chat_record(0, "x"), "path": "/v2/magic"}, 404, "simulated servers do not know the path /v2/magic"),
    ],
    ids=["too long", "no JSON", "no messages", "unknown path"],
)
def test_refused_requests(record: dict[str, Any], status: int, problem: str) -> None:
    good = tokens_record(10, [1]) if "timestamp" in record else chat_record(1, "good")
    outcome, other = run([record, good], around=options(kv_blocks=256)).outcomes
    assert outcome.status == status
    assert problem in outcome.problem
    assert outcome.ttft_s is None
    assert other.is_served


def test_nobody_left_to_pick() -> None:
    document = """
plugins: [{type: by-label, parameters: {label: zone, validValues: [b]}}, {type: max-score-picker}]
schedulingProfiles: [{name: default, plugins: [{pluginRef: by-label}, {pluginRef: max-score-picker}]}]
"""
    (outcome,) = run([tokens_record(0, [1])], document).outcomes
    assert (outcome.status, outcome.server) == (429, None)
    assert "no endpoints left after filter 'by-label'" in outcome.problem
    labelled = replace(options(), labels=({}, {"zone": "b"}, {}))
    (outcome,) = run([tokens_record(0, [1])], document, labelled).outcomes
    assert (outcome.status, outcome.server) == (200, 1)


def test_a_renamed_model_is_what_the_server_gets() -> None:
    headers = {"x-gateway-model-name-rewrite": "adapter"}
    around = replace(options(servers=1, lora_load_ms=50), lora=("adapter",))
    base, tuned = run([chat_record(0, "x" * 400), chat_record(1, "x" * 400, headers=headers)], around=around).outcomes
    assert base.ttft_s is not None
    assert tuned.ttft_s == pytest.approx(base.ttft_s + 0.050), "the adapter is loaded"
    assert tuned.cached_tokens == 0, "and has a cache of its own"


def test_a_source_that_needs_a_network_has_none_and_nothing_hangs() -> None:
    document = (
        LOAD.replace("plugins: [", "plugins: [{type: models-data-source}, {type: model-server-protocol-models}, ", 1)
        + """
data: {sources: [{pluginRef: models-data-source, extractors: [{pluginRef: model-server-protocol-models}]}]}
"""
    )
    assert all(outcome.is_served for outcome in run(steady(20), document).outcomes)


def test_a_replay_that_cannot_end_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EngineDriver, "submit", lambda self, sequences: None)
    monkeypatch.setattr(run_module, "STUCK_S", 30.0)
    with pytest.raises(ReplayError, match=r"test: 2 requests wait, and nothing has happened for 30 s"):
        run(steady(2))


def test_plugins_get_the_clock_and_the_chance_of_the_replay() -> None:
    calls: list[Call] = []
    ids: list[str] = []
    drawn: list[float] = []

    class Asks(Diary):
        def pre_request(self, request: Any, result: Any, edits: Any) -> None:
            ids.append(request.request_id)

    def create(context: Any, params: Any) -> Asks:
        rng: random.Random = context.rng
        drawn.append(rng.random())
        return Asks(context, calls)

    for _ in range(2):
        types = registry_with(calls, (Role.PRE_REQUEST,))
        types.register(plugin_type("asks", Role.PRE_REQUEST, factory=create))
        run(steady(5), "plugins: [{type: asks}]\n", types=types)
    assert len(ids) == 10
    assert ids[:5] == ids[5:]
    assert len(set(ids)) == 5
    replayed = drawn[-1]
    assert drawn.count(replayed) >= 2, "plugins draw the same again"


# ── decisions that depend on prompts ──

PREFIX = """
plugins: [{type: prefix-cache-scorer, parameters: {blockSizeTokens: 16}}, {type: queue-scorer}, {type: max-score-picker}]
schedulingProfiles:
- name: default
  plugins: [{pluginRef: prefix-cache-scorer, weight: 3}, {pluginRef: queue-scorer}, {pluginRef: max-score-picker}]
"""


def test_a_conversation_goes_where_its_beginning_is() -> None:
    """The plugin sees real prompts by the transport's reader: tokens of a trace, and texts of recorded requests."""
    conversations = [[i, 100 + i] for i in range(12)]
    first = [tokens_record(100 * i, ids) for i, ids in enumerate(conversations)]
    second = [tokens_record(5000 + 100 * i, [*ids, 200 + i]) for i, ids in enumerate(reversed(conversations))]
    outcomes = run([*first, *second], PREFIX).outcomes
    where = {outcome.line: outcome.server for outcome in outcomes}
    assert [where[13 + i] for i in range(12)] == [where[12 - i] for i in range(12)]
    assert len(set(where.values())) == 3
    assert all(outcome.cached_tokens == 1024 for outcome in outcomes[12:])
    chats = [chat_record(i / 10, f"{i} tells a long story " * 40) for i in range(6)]
    again = [chat_record(3 + i / 10, f"{i} tells a long story " * 40 + "with an end") for i in range(6)]
    outcomes = run([*chats, *again], PREFIX).outcomes
    assert [outcome.server for outcome in outcomes[6:]] == [outcome.server for outcome in outcomes[:6]]
    assert all(outcome.cached_tokens for outcome in outcomes[6:])


def test_plugins_read_what_the_transport_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The results of the readers that they want are data of the request, as those of a real transport."""
    seen: list[object] = []
    schedule = Scheduler.schedule

    def watched(self: Scheduler, request: InferenceRequest, candidates: Candidates, record: Any = None) -> Any:
        seen.append(request.data.get(reading("prompt-blocks/64/256")))
        return schedule(self, request, candidates, record)

    records = steady(40)
    monkeypatch.setattr(twins, "READS_BODIES", False)
    at_the_decision = run(records, PREFIX)
    monkeypatch.setattr(twins, "READS_BODIES", True)
    monkeypatch.setattr(Scheduler, "schedule", watched)
    assert told(run(records, PREFIX)) == told(at_the_decision)
    assert len(seen) == 40
    for packed, record in zip(seen, records, strict=True):
        assert isinstance(packed, bytes)
        assert len(packed) == 8 + 4 + 1 + 4 + 4 + 8 * (record["input_length"] // 16), "whole blocks of 16 tokens"


@pytest.mark.parametrize("document", [PREFIX, LOAD], ids=["prefix", "load"])
def test_prefix_and_load_find_more_in_caches_than_chance_does(document: str) -> None:
    """On the load that is shipped. Load alone finds what chance finds."""
    with data_path("traces", "conversations.jsonl.gz").open("rb") as file:
        shipped = read_trace(file, "shipped", 600)
    around = options(servers=4)
    by_chance = figures(replay("random", config(RANDOM), shipped, around)).hit_rate
    found = figures(replay("other", config(document), shipped, around)).hit_rate
    if document is PREFIX:
        assert found > 1.25 * by_chance
        assert found > 0.85 * bound(shipped, around).hit_rate
    else:
        assert found < 1.2 * by_chance
