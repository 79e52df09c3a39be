"""The engine model, driven by a clock that exists only in the test."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Many
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.simulate.engine import Engine
from epp.simulate.options import EngineOptions
from epp.simulate.sequence import Phase, Sequence

OPTIONS = EngineOptions(ttft_ms=100, prefill_us_per_token=1000, tpot_ms=10, tpot_growth=0, max_num_seqs=4, kv_blocks=1000)
START_S = 1000.0


def tokens(count: int, letter: bytes = b"p") -> bytes:
    return letter * 4 * count


def sequence(prompt_tokens: int = 10, answer_tokens: int = 5, letter: bytes = b"p", **more: object) -> Sequence:
    return Sequence(tokens(prompt_tokens, letter), tokens(answer_tokens, b"a"), **more)  # type: ignore[arg-type]


def run(engine: Engine, until_s: float = float("inf")) -> int:
    """Let everything due by ``until_s`` happen; the number of wake-ups that it took."""
    wake_ups = 0
    while engine.due_s is not None and engine.due_s <= until_s:
        engine.advance(engine.due_s)
        wake_ups += 1
    return wake_ups


def test_a_lone_request_takes_prefill_plus_base_plus_one_step_per_further_token() -> None:
    engine = Engine(OPTIONS)
    one = sequence(prompt_tokens=50, answer_tokens=4)
    engine.submit(one, START_S)
    run(engine)
    assert one.first_token_s == pytest.approx(START_S + 0.050 + 0.100)
    assert one.finished_s == pytest.approx(START_S + 0.150 + 3 * 0.010)
    assert one.produced == 4
    assert engine.due_s is None


def test_a_watched_request_gets_its_tokens_one_by_one() -> None:
    engine = Engine(OPTIONS)
    seen: list[int] = []
    one = sequence(answer_tokens=6, watched=True)
    one.on_progress = lambda: seen.append(one.produced)
    engine.submit(one, START_S)
    run(engine)
    assert seen == [1, 2, 3, 4, 5, 6]


def test_an_unwatched_request_costs_few_wake_ups_however_long_it_is() -> None:
    engine = Engine(OPTIONS)
    engine.submit(sequence(answer_tokens=200), START_S)
    assert run(engine) <= 4


@pytest.mark.parametrize("watched", [True, False], ids=["token by token", "many steps at once"])
def test_both_ways_of_stepping_take_the_same_time(watched: bool) -> None:
    engine = Engine(replace(OPTIONS, tpot_growth=1))
    several = [sequence(answer_tokens=length, watched=watched) for length in (40, 7, 21)]
    for index, one in enumerate(several):
        engine.submit(one, START_S + index * 0.017)
        run(engine, START_S + index * 0.017)
    run(engine)
    # By hand: first tokens at 110, 130 and 156.7 ms, steps of 10, 13.3 or 16.7 ms for one, two or three that decode.
    assert [round(one.finished_s - START_S, 4) for one in several] == [0.5867, 0.2233, 0.4367]


def test_more_requests_than_the_batch_holds_wait_in_order() -> None:
    engine = Engine(OPTIONS)
    several = [sequence(answer_tokens=5) for _ in range(6)]
    for one in several:
        engine.submit(one, START_S)
    # The first is admitted at once; the next three when its prefill step has ended.
    assert (engine.running, engine.waiting) == (1, 5)
    engine.advance(START_S + 0.011)
    assert (engine.running, engine.waiting) == (4, 2)
    run(engine)
    ends = [one.finished_s for one in several]
    assert ends == sorted(ends)
    assert several[4].admitted_s >= several[0].finished_s


def test_a_full_batch_slows_each_token_down() -> None:
    ends = []
    for count in (1, 4):
        engine = Engine(replace(OPTIONS, tpot_growth=1.0, prefill_us_per_token=0))
        several = [sequence(answer_tokens=11) for _ in range(count)]
        for one in several:
            engine.submit(one, START_S)
        run(engine)
        ends.append(several[0].finished_s - several[0].first_token_s)
    alone_s, together_s = ends
    assert alone_s == pytest.approx(0.100)
    assert together_s == pytest.approx(0.200)


def test_a_long_prompt_delays_those_who_decode() -> None:
    engine = Engine(replace(OPTIONS, max_batched_tokens=100))
    talking = sequence(answer_tokens=20, watched=True)
    engine.submit(talking, START_S)
    run(engine, START_S + 0.150)
    before = talking.produced
    engine.submit(sequence(prompt_tokens=300, letter=b"q"), START_S + 0.150)
    run(engine, START_S + 0.150 + 3 * 0.110)
    # Three chunks of 100 tokens take 110 ms each, and only one token comes with each.
    assert talking.produced - before == 3


def test_a_known_prefix_is_not_computed_again() -> None:
    engine = Engine(OPTIONS)
    first, second = sequence(prompt_tokens=160), sequence(prompt_tokens=160)
    engine.submit(first, START_S)
    run(engine)
    later_s = START_S + 10
    engine.submit(second, later_s)
    run(engine)
    assert first.cached_tokens == 0
    # The last block is computed anyway: a prompt that is cached whole has nothing to start from.
    assert second.cached_tokens == 144
    assert second.first_token_s - later_s == pytest.approx(0.016 + 0.100)
    assert engine.statistics.prefix_hit_ratio == pytest.approx(144 / 320)


def test_the_next_turn_of_a_conversation_finds_the_answer_in_the_cache_too() -> None:
    engine = Engine(OPTIONS)
    first = Sequence(tokens(32), tokens(32, b"a"))
    engine.submit(first, START_S)
    run(engine)
    second = Sequence(tokens(32) + tokens(32, b"a") + tokens(16, b"q"), tokens(1))
    engine.submit(second, START_S + 10)
    run(engine)
    assert second.cached_tokens == 64


@pytest.mark.parametrize("other", [{"adapter": "sql"}, {"salt": "tenant"}], ids=["adapter", "salt"])
def test_nothing_is_shared_across(other: dict[str, str]) -> None:
    engine = Engine(OPTIONS)
    engine.submit(sequence(prompt_tokens=64), START_S)
    stranger = sequence(prompt_tokens=64, **other)
    engine.submit(stranger, START_S)
    run(engine)
    assert stranger.cached_tokens == 0


def test_the_least_recently_used_prefix_is_forgotten_first() -> None:
    engine = Engine(replace(OPTIONS, kv_blocks=10))
    for letter in (b"x", b"y", b"z"):
        engine.submit(sequence(prompt_tokens=64, answer_tokens=1, letter=letter), START_S)
        run(engine)
    hits = {}
    # Ten blocks hold the last two prompts and the first block of the oldest: a prefix loses its end first.
    for letter in (b"z", b"x"):
        again = sequence(prompt_tokens=64, answer_tokens=1, letter=letter)
        engine.submit(again, START_S + 1)
        run(engine)
        hits[letter] = again.cached_tokens
    assert hits == {b"z": 48, b"x": 16}


def test_held_blocks_count_as_usage_and_cached_ones_do_not() -> None:
    engine = Engine(replace(OPTIONS, kv_blocks=100))
    engine.submit(sequence(prompt_tokens=160, answer_tokens=16), START_S)
    assert engine.kv_usage_ratio == pytest.approx(0.10)
    run(engine, START_S + 0.300)
    assert engine.kv_usage_ratio == pytest.approx(0.11)
    run(engine)
    assert engine.kv_usage_ratio == 0.0


def test_usage_grows_while_steps_run_as_one() -> None:
    engine = Engine(replace(OPTIONS, kv_blocks=100))
    one = sequence(prompt_tokens=16, answer_tokens=160)
    engine.submit(one, START_S)
    engine.settle(START_S + 0.116 + 0.805)
    assert one.produced == 81
    assert engine.kv_usage_ratio == pytest.approx(0.07)


def test_want_of_blocks_preempts_the_youngest_and_all_are_answered() -> None:
    engine = Engine(replace(OPTIONS, kv_blocks=8))
    older = sequence(prompt_tokens=48, answer_tokens=64, letter=b"x")
    younger = sequence(prompt_tokens=48, answer_tokens=64, letter=b"y")
    for one in (older, younger):
        engine.submit(one, START_S)
    run(engine)
    assert [one.phase for one in (older, younger)] == [Phase.FINISHED, Phase.FINISHED]
    assert (older.preemptions, younger.preemptions) == (0, 1)
    assert engine.statistics.preemptions == 1
    assert younger.finished_s > older.finished_s
    assert engine.kv_usage_ratio == 0.0


def test_what_can_never_fit_is_refused() -> None:
    engine = Engine(replace(OPTIONS, kv_blocks=4))
    with pytest.raises(ValueError, match="65 tokens do not fit into 64"):
        engine.submit(sequence(prompt_tokens=60, answer_tokens=5), START_S)
    assert engine.waiting == 0


def test_adapters_beyond_max_lora_wait_and_do_not_block_others() -> None:
    engine = Engine(replace(OPTIONS, max_lora=1, prefill_us_per_token=0))
    sql, chat, base = (sequence(adapter=name) for name in ("sql", "chat", None))
    for one in (sql, chat, base):
        engine.submit(one, START_S)
    run(engine, START_S + 0.001)
    assert (engine.running_adapters, engine.waiting_adapters) == (["sql"], ["chat"])
    assert engine.running == 2
    run(engine)
    assert chat.admitted_s >= sql.finished_s > base.admitted_s


def test_loading_an_adapter_costs_time_only_when_it_is_not_resident() -> None:
    engine = Engine(replace(OPTIONS, max_lora=1, lora_load_ms=500, prefill_us_per_token=0))
    waits = []
    for index, adapter in enumerate(("sql", "sql", "chat", "sql")):
        one = sequence(adapter=adapter)
        engine.submit(one, START_S + 10 * index)
        run(engine)
        waits.append(round(one.first_token_s - one.arrival_s, 3))
    assert waits == [0.6, 0.1, 0.6, 0.6]


@pytest.mark.parametrize("at_s", [0.0, 0.005, 0.060, 0.125], ids=["queued", "prefill", "starting", "decoding"])
def test_an_abort_frees_everything_wherever_the_request_is(at_s: float) -> None:
    engine = Engine(OPTIONS)
    one = sequence()
    engine.submit(one, START_S)
    engine.abort(one, START_S + at_s)
    run(engine)
    assert one.phase is Phase.ABORTED
    assert (engine.running, engine.waiting, engine.kv_usage_ratio, engine.due_s) == (0, 0, 0.0, None)
    assert engine.statistics.ended_by_reason == {"abort": 1}


def test_an_abort_lets_the_next_one_in() -> None:
    engine = Engine(replace(OPTIONS, max_num_seqs=1))
    long, short = sequence(answer_tokens=500), sequence(answer_tokens=1)
    engine.submit(long, START_S)
    engine.submit(short, START_S)
    run(engine, START_S + 0.200)
    engine.abort(long, START_S + 0.200)
    run(engine)
    assert short.finished_s == pytest.approx(START_S + 0.200 + 0.010 + 0.110, abs=0.011)


def test_an_empty_answer_ends_after_the_prompt() -> None:
    engine = Engine(OPTIONS)
    one = sequence(prompt_tokens=20, answer_tokens=0)
    engine.submit(one, START_S)
    run(engine)
    assert one.finished_s == pytest.approx(START_S + 0.120)


def test_time_scale_zero_answers_at_once() -> None:
    engine = Engine(replace(OPTIONS, time_scale=0))
    one = sequence(answer_tokens=500, watched=True)
    engine.submit(one, START_S)
    run(engine)
    assert one.finished_s == START_S


def test_a_reset_forgets_the_cache_and_drops_the_requests() -> None:
    engine = Engine(OPTIONS)
    engine.submit(sequence(prompt_tokens=160), START_S)
    run(engine)
    dropped = sequence(prompt_tokens=160)
    engine.submit(dropped, START_S + 1)
    engine.reset(START_S + 1)
    again = sequence(prompt_tokens=160)
    engine.submit(again, START_S + 2)
    run(engine)
    assert dropped.phase is Phase.ABORTED
    assert again.cached_tokens == 0


def test_a_fetched_prompt_takes_its_transfer_instead_of_its_computation() -> None:
    engine = Engine(replace(OPTIONS, transfer_us_per_token=100))
    one = sequence(prompt_tokens=160, answer_tokens=2, transferred=True)
    engine.submit(one, START_S)
    run(engine)
    assert one.first_token_s == pytest.approx(START_S + 0.016 + 0.100)
    assert (one.cached_tokens, one.fetched_tokens) == (159, 160)
    later_s = START_S + 10
    again = sequence(prompt_tokens=160, answer_tokens=2, transferred=True)
    engine.submit(again, later_s)
    run(engine)
    assert again.fetched_tokens == 16, "what is here already is not fetched"
    assert again.first_token_s == pytest.approx(later_s + 0.0016 + 0.100)
    statistics = engine.statistics
    assert (statistics.external_queries, statistics.external_hits) == (160 + 16, 160 + 16)
    assert (statistics.prefix_queries, statistics.prefix_hits) == (320, 144)


def test_a_transfer_stops_nobody_who_decodes() -> None:
    engine = Engine(replace(OPTIONS, transfer_us_per_token=10_000))
    talking = sequence(answer_tokens=20, watched=True)
    engine.submit(talking, START_S)
    run(engine, START_S + 0.150)
    before = talking.produced
    engine.submit(sequence(prompt_tokens=300, letter=b"q", transferred=True), START_S + 0.150)
    run(engine, START_S + 0.150 + 0.100)
    assert talking.produced - before == 10


def test_kept_blocks_stay_held_until_they_are_given_up() -> None:
    engine = Engine(replace(OPTIONS, kv_blocks=12))
    kept = sequence(prompt_tokens=160, answer_tokens=1, kept=True)
    engine.submit(kept, START_S)
    run(engine)
    assert kept.phase is Phase.FINISHED
    assert engine.kv_usage_ratio == pytest.approx(11 / 12)
    assert not engine.forget(START_S + 1)
    other = sequence(prompt_tokens=100, letter=b"q")
    engine.submit(other, START_S + 1)
    assert engine.waiting == 1, "there is no room for it"
    for _ in range(2):  # the second time nothing happens
        engine.free(kept, START_S + 2)
    run(engine)
    assert other.phase is Phase.FINISHED
    assert other.admitted_s == START_S + 2
    assert engine.kv_usage_ratio == 0
    assert engine.forget(START_S + 3)
    assert engine.cached_blocks == 0


def test_an_aborted_request_keeps_nothing() -> None:
    engine = Engine(OPTIONS)
    kept = sequence(kept=True)
    engine.submit(kept, START_S)
    engine.abort(kept, START_S + 0.001)
    assert engine.kv_usage_ratio == 0


def _ends(options: EngineOptions) -> list[float]:
    engine = Engine(options)
    several = [sequence(answer_tokens=20) for _ in range(3)]
    for one in several:
        engine.submit(one, START_S)
    run(engine)
    return [one.finished_s for one in several]


def test_jitter_is_the_same_for_the_same_seed_only() -> None:
    jittery = replace(OPTIONS, jitter_ratio=0.2, seed=7)
    assert _ends(jittery) == _ends(jittery)
    assert _ends(jittery) != _ends(replace(jittery, seed=8))


_REQUESTS = st.lists(
    st.tuples(
        st.integers(0, 400),  # arrival, milliseconds
        st.integers(1, 90),  # prompt tokens
        st.integers(0, 60),  # answer tokens
        st.sampled_from([None, "sql", "chat", "code"]),
        st.booleans(),  # watched
        st.one_of(st.none(), st.integers(0, 900)),  # aborted after, milliseconds
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(requests=_REQUESTS, kv_blocks=st.integers(10, 40), max_num_seqs=st.integers(1, 5))
def test_whatever_comes_ends_once_and_leaves_nothing(
    requests: Many[tuple[int, int, int, str | None, bool, int | None]], kv_blocks: int, max_num_seqs: int
) -> None:
    engine = Engine(replace(OPTIONS, kv_blocks=kv_blocks, max_num_seqs=max_num_seqs, max_lora=2))
    events: list[tuple[float, Callable[[float], None]]] = []
    submitted: list[Sequence] = []
    for arrival_ms, prompt, answer, adapter, watched, abort_ms in requests:
        one = sequence(prompt, answer, letter=b"xy"[prompt % 2 :][:1], adapter=adapter, watched=watched)
        submitted.append(one)
        events.append((START_S + arrival_ms / 1e3, lambda now_s, one=one: engine.submit(one, now_s)))  # type: ignore[misc]
        if abort_ms is not None:
            at_s = START_S + (arrival_ms + abort_ms) / 1e3
            events.append((at_s, lambda now_s, one=one: engine.abort(one, now_s)))  # type: ignore[misc]
    for at_s, do in sorted(events, key=lambda event: event[0]):
        run(engine, at_s)
        do(at_s)
        assert 0 <= engine.kv_usage_ratio <= 1
        assert engine.running <= max_num_seqs
        assert len(engine.running_adapters) <= 2
    run(engine)
    assert all(one.ended for one in submitted)
    assert all(one.produced == one.answer_tokens for one in submitted if one.phase is Phase.FINISHED)
    assert (engine.running, engine.waiting, engine.kv_usage_ratio) == (0, 0, 0.0)
    assert sum(engine.statistics.ended_by_reason.values()) == len(submitted)
    assert engine.statistics.generation_tokens == sum(one.produced for one in submitted)
