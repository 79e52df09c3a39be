"""Hooks run in declaration order, and each kind fails in its own way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from epp.errors import ErrorCode, RequestError
from epp.framework.candidates import Candidates
from epp.framework.interfaces import Role
from epp.framework.results import ProfileRunResult, SchedulingResult
from epp.framework.testing import make_candidates, make_request
from epp.framework.types import Cause, Completion, ResponseInfo, StreamingChunk, Usage
from epp.hooks.runner import HookRunner
from epp.hooks.slots import Hooks, is_async, make_hook
from epp.plugin_calls import step
from epp.plugin_calls.step import IN_TASK, CallWatch
from epp.process.runtime import TaskRuntime
from epp.request.edits import EditList
from epp.seam import Edits
from tests.unit.decision.rig import SLOTS, AsyncPlugin, FakeHead, Plugin, hooks
from tests.unit.scheduling.doubles import Reports, ignore

REQUEST = make_request()
CANDIDATES = make_candidates(3)
A = CANDIDATES[0]
RESULT = SchedulingResult("default", {"default": ProfileRunResult((A,), CANDIDATES, [0.0] * 3)}, (A,))
RESPONSE = ResponseInfo(200, FakeHead().headers, A, {}, 0.0)
COMPLETION = Completion(Cause.NATURAL, 200, A, Usage(), True, None, 1.0, 0, False)
BUG = ZeroDivisionError("secret")
TYPED = RequestError(ErrorCode.PRECONDITION_FAILED, "no cache")
KINDS = [Plugin, AsyncPlugin]


def runner(*plugins: Plugin, reports: Reports | None = None) -> HookRunner:
    return HookRunner(hooks(*plugins, reports=reports), TaskRuntime().spawn)


def chunk(data: bytes) -> StreamingChunk:
    return StreamingChunk(data, False, 0.0, Usage())


def refusal(call: Callable[[], object]) -> RequestError:
    with pytest.raises(RequestError) as caught:
        call()
    return caught.value


async def later_refusal(awaitable: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        await awaitable
    return caught.value


# ── request headers ──


def test_request_header_hooks_in_order() -> None:
    journal: list[str] = []
    edits = EditList()
    first = Plugin("first", journal, process_request=lambda request, edits: edits.set("x-a", "1"))
    second = Plugin("second", journal, process_request=lambda request, edits: edits.set("x-a", "2"))
    runner(first, second).request_header(REQUEST, edits)
    assert journal == ["first.process_request", "second.process_request"]
    assert edits.freeze() == Edits((("x-a", "2"),))


@pytest.mark.parametrize(
    ("error", "refused", "reported"),
    [
        pytest.param(TYPED, TYPED, [], id="its own refusal"),
        pytest.param(
            BUG, RequestError(ErrorCode.INTERNAL, "internal error"), [(Role.REQUEST_HEADER, "first", "secret")], id="a defect"
        ),
    ],
)
def test_a_request_header_hook_ends_the_request(error: Exception, refused: RequestError, reported: list[object]) -> None:
    journal: list[str] = []
    reports = Reports()
    hooks = runner(Plugin("first", journal, process_request=error), Plugin("second", journal), reports=reports)
    assert refusal(lambda: hooks.request_header(REQUEST, EditList())) == refused
    assert journal == ["first.process_request"]
    assert reports.seen == reported


# ── screeners ──


def keeps(*positions: int) -> Callable[[object, Candidates], Candidates]:
    return lambda request, candidates: candidates.select(positions)


@pytest.mark.parametrize(
    ("screens", "names", "defects"),
    [
        pytest.param([keeps(0, 1), keeps(1, 2)], "b", 0, id="what all keep"),
        pytest.param([keeps(2, 0)], "ac", 0, id="in candidate order"),
        pytest.param([keeps(0), keeps(1)], "", 0, id="nothing"),
        pytest.param([BUG, keeps(1)], "b", 1, id="one fails"),
        pytest.param([keeps(1), 5], "b", 1, id="one returns a number"),
        pytest.param([BUG, BUG], "abc", 2, id="all fail"),
        pytest.param([], "abc", 0, id="none"),
    ],
)
def test_screeners_are_intersected(screens: Sequence[object], names: str, defects: int) -> None:
    journal: list[str] = []
    reports = Reports()
    plugins = [Plugin(f"p{i}", journal, screen=screen) for i, screen in enumerate(screens)]
    kept = runner(*plugins, reports=reports).screen(REQUEST, CANDIDATES)
    assert "".join(e.name for e in kept) == names
    assert len(kept.metrics) == len(kept)
    assert [role for role, _, _ in reports.seen] == [Role.SCREENER] * defects
    assert len(journal) == len(screens), "every screener sees all candidates"


# ── data producers ──


async def run_producers(
    kind: type[Plugin], plugins: list[Plugin], reports: Reports, needs: Mapping[str, set[str]] = MappingProxyType({})
) -> None:
    hooks = runner(*plugins, reports=reports)
    producers = [replace(hook, needs=frozenset(needs.get(hook.name, ()))) for hook in hooks.hooks.producers]
    hooks.hooks = replace(hooks.hooks, producers=producers)
    await hooks.produce(REQUEST, CANDIDATES, IN_TASK)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_producer_that_fails_takes_those_with_it_that_read_its_data(kind: type[Plugin]) -> None:
    journal: list[str] = []
    reports = Reports()
    plugins = [kind(f"p{i}", journal, **({"produce": BUG} if i == 1 else {})) for i in range(5)]
    await run_producers(kind, plugins, reports, {"p2": {"p1"}, "p3": {"p2"}, "p4": {"p0"}})
    assert journal == ["p0.produce", "p1.produce", "p4.produce"]
    assert reports.seen == [(Role.DATA_PRODUCER, "p1", "secret")]


async def for_ever(*args: object) -> None:
    await asyncio.Event().wait()


async def test_a_slow_producer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "HOOK_DEADLINE_S", 0.01)
    journal: list[str] = []
    reports = Reports()
    await run_producers(AsyncPlugin, [AsyncPlugin("slow", journal, produce=for_ever), AsyncPlugin("next", journal)], reports)
    assert journal == ["slow.produce", "next.produce"]
    assert reports.seen == [(Role.DATA_PRODUCER, "slow", "took longer than 0.01 s")]


async def test_a_plugin_can_have_a_deadline_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "HOOK_DEADLINE_S", 60.0)
    slow = AsyncPlugin("slow", [], produce=for_ever)
    slow.deadline_s = 0.01  # type: ignore[attr-defined]
    reports = Reports()
    await run_producers(AsyncPlugin, [slow], reports)
    assert reports.seen == [(Role.DATA_PRODUCER, "slow", "took longer than 0.01 s")]


class _Guarded:
    """Tells how long calls took, as a guard is told."""

    def __init__(self) -> None:
        self.calls, self.is_out, self.checked_s = 0, False, list[float]()

    def check(self, elapsed_s: float) -> None:
        self.checked_s.append(elapsed_s)


@pytest.mark.parametrize(("took_s", "judged_s"), [(0.2, 0.0), (0.39, 0.39)])
async def test_a_plain_function_that_waits_after_all_is_judged_as_a_coroutine(took_s: float, judged_s: float) -> None:
    guard, times = _Guarded(), iter([1.0, 1.0 + took_s])
    watch = CallWatch(Role.DATA_PRODUCER, "t", "p", Reports(), ignore, guard, clock=lambda: next(times))  # type: ignore[arg-type]
    await watch.waiting(lambda: asyncio.sleep(0))(None, IN_TASK)
    assert guard.checked_s == [pytest.approx(judged_s)]


async def test_a_plugins_own_timeout_keeps_its_text() -> None:
    reports = Reports()
    await run_producers(AsyncPlugin, [AsyncPlugin("p", [], produce=TimeoutError("tokenizer did not answer"))], reports)
    assert reports.seen == [(Role.DATA_PRODUCER, "p", "tokenizer did not answer")]


async def test_plain_and_coroutine_producers_follow_one_another() -> None:
    journal: list[str] = []
    await runner(AsyncPlugin("p0", journal), Plugin("p1", journal), AsyncPlugin("p2", journal)).produce(
        REQUEST, CANDIDATES, IN_TASK
    )
    assert journal == ["p0.produce", "p1.produce", "p2.produce"]


# ── admitters ──


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("outcome", "refused", "reported"),
    [
        pytest.param("no", RequestError(ErrorCode.RESOURCE_EXHAUSTED, "request cannot be admitted: no"), 0, id="C57 denied"),
        pytest.param(
            "", RequestError(ErrorCode.RESOURCE_EXHAUSTED, "request cannot be admitted: "), 0, id="denied without a word"
        ),
        pytest.param(TYPED, TYPED, 0, id="its own refusal"),
        pytest.param(BUG, RequestError(ErrorCode.INTERNAL, "internal error"), 1, id="a defect"),
    ],
)
async def test_the_first_denial_wins(kind: type[Plugin], outcome: object, refused: RequestError, reported: int) -> None:
    journal: list[str] = []
    reports = Reports()
    plugins = [kind("p0", journal), kind("p1", journal, admit=outcome), kind("p2", journal, admit="late")]
    hooks = runner(*plugins, reports=reports)
    assert await later_refusal(hooks.admit(REQUEST, CANDIDATES, IN_TASK)) == refused
    assert journal == ["p0.admit", "p1.admit"]
    assert reports.seen == [(Role.ADMITTER, "p1", "secret")] * reported


async def test_a_slow_admitter_is_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "HOOK_DEADLINE_S", 0.01)
    reports = Reports()
    error = await later_refusal(
        runner(AsyncPlugin("p", [], admit=for_ever), reports=reports).admit(REQUEST, CANDIDATES, IN_TASK)
    )
    assert error == RequestError(ErrorCode.INTERNAL, "internal error")
    assert reports.seen == [(Role.ADMITTER, "p", "took longer than 0.01 s")]


# ── PreRequest ──

OTHER = RequestError(ErrorCode.FORBIDDEN, "not you")
FAILURES = [
    pytest.param([TYPED, None, None], TYPED, [], id="C55 one, typed"),
    pytest.param(
        [None, BUG, None],
        RequestError(ErrorCode.INTERNAL, 'PreRequest "p1/plugin-type" failed: internal error'),
        [(Role.PRE_REQUEST, "p1", "secret")],
        id="C55 one, a defect",
    ),
    pytest.param(
        [TYPED, None, OTHER],
        RequestError(
            ErrorCode.INTERNAL,
            'PreRequest "p0/plugin-type" failed: no cache\nPreRequest "p2/plugin-type" failed: not you',
        ),
        [],
        id="C55 two, typed",
    ),
    pytest.param(
        [BUG, TYPED, None],
        RequestError(
            ErrorCode.INTERNAL,
            'PreRequest "p0/plugin-type" failed: internal error\nPreRequest "p1/plugin-type" failed: no cache',
        ),
        [(Role.PRE_REQUEST, "p0", "secret")],
        id="C55 two, of both kinds",
    ),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("failures", "refused", "reported"), FAILURES)
async def test_all_pre_request_hooks_run(
    kind: type[Plugin], failures: list[Exception | None], refused: RequestError, reported: list[object]
) -> None:
    journal: list[str] = []
    reports = Reports()
    hooks = runner(*[kind(f"p{i}", journal, pre_request=error) for i, error in enumerate(failures)], reports=reports)
    assert await later_refusal(hooks.pre_request(REQUEST, RESULT, EditList(), IN_TASK)) == refused
    assert journal == ["p0.pre_request", "p1.pre_request", "p2.pre_request"]
    assert reports.seen == reported


# ── response ──


def test_received_hooks_run_though_one_fails() -> None:
    journal: list[str] = []
    reports = Reports()
    edits = EditList()
    last = Plugin("p1", journal, response_received=lambda request, result, response, edits: edits.set("x-a", "1"))
    runner(Plugin("p0", journal, response_received=BUG), last, reports=reports).received(REQUEST, RESULT, RESPONSE, edits)
    assert journal == ["p0.response_received", "p1.response_received"]
    assert reports.seen == [(Role.RESPONSE_RECEIVED, "p0", "secret")]
    assert edits.freeze().set == (("x-a", "1"),)


def test_plain_response_hooks_run_at_once_though_one_fails() -> None:
    journal: list[str] = []
    reports = Reports()
    hooks = runner(Plugin("p0", journal, response_streaming=BUG, response_complete=BUG), Plugin("p1", journal), reports=reports)
    assert hooks.streaming(REQUEST, RESULT, chunk(b"x"), None) is None
    hooks.complete(REQUEST, RESULT, COMPLETION, None)
    assert journal == ["p0.response_streaming", "p1.response_streaming", "p0.response_complete", "p1.response_complete"]
    assert reports.seen == [(Role.RESPONSE_STREAMING, "p0", "secret"), (Role.RESPONSE_COMPLETE, "p0", "secret")]


class Spawned:
    """Background tasks of a test."""

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[None]] = []

    def __call__(self, work: Any, name: str) -> asyncio.Task[None]:
        self.tasks.append(asyncio.create_task(work, name=name))
        return self.tasks[-1]

    async def settle(self) -> None:
        await asyncio.gather(*self.tasks)


async def test_coroutine_response_hooks_keep_the_order_of_their_request() -> None:
    journal: list[str] = []
    gate = asyncio.Event()

    async def wait_for_gate(request: object, result: object, told: StreamingChunk) -> None:
        if told.data == b"1":
            await gate.wait()
        journal.append(f"saw {told.data.decode()}")

    spawned = Spawned()
    plugin = AsyncPlugin("p", journal, response_streaming=wait_for_gate)
    hooks_ = HookRunner(hooks(plugin), spawned)
    tail = hooks_.streaming(REQUEST, RESULT, chunk(b"1"), None)
    tail = hooks_.streaming(REQUEST, RESULT, chunk(b"2"), tail)
    hooks_.complete(REQUEST, RESULT, COMPLETION, tail)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert journal == ["p.response_streaming"], "the second waits for the first"
    gate.set()
    await spawned.settle()
    assert journal == ["p.response_streaming", "saw 1", "p.response_streaming", "saw 2", "p.response_complete"]
    assert [task.get_name() for task in spawned.tasks] == ["ResponseStreaming:p", "ResponseStreaming:p", "ResponseComplete:p"]


@pytest.mark.parametrize(
    ("outcome", "text"), [(BUG, "secret"), (for_ever, "took longer than 0.01 s")], ids=["raises", "is slow"]
)
async def test_a_coroutine_that_fails_does_not_stop_those_behind_it(
    outcome: object, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "HOOK_DEADLINE_S", 0.01)
    journal: list[str] = []
    reports = Reports()
    spawned = Spawned()
    plugins = [AsyncPlugin("p0", journal, response_complete=outcome), AsyncPlugin("p1", journal), Plugin("p2", journal)]
    HookRunner(hooks(*plugins, reports=reports), spawned).complete(REQUEST, RESULT, COMPLETION, None)
    await spawned.settle()
    assert sorted(journal) == ["p0.response_complete", "p1.response_complete", "p2.response_complete"]
    assert reports.seen == [(Role.RESPONSE_COMPLETE, "p0", text)]


# ── all ──


def test_coroutine_functions_are_told_apart() -> None:
    assert is_async(AsyncPlugin("p", []), Role.DATA_PRODUCER)
    assert not is_async(Plugin("p", []), Role.DATA_PRODUCER)


def timed(times: list[float], plugin: Plugin) -> Hooks:
    """The plugin in all slots, on a clock that counts how often it is looked at."""
    clock = iter(range(1000))

    def watch(role: Role) -> CallWatch:
        return CallWatch(role, "t", "p", Reports(), times.append, clock=lambda: float(next(clock)))

    return Hooks(**{slot: [make_hook(watch(role), plugin)] for slot, role in SLOTS.items()})  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
async def test_every_hook_is_timed(kind: type[Plugin]) -> None:
    times: list[float] = []
    spawned = Spawned()
    plain = timed(times, Plugin("p", []))
    slots = replace(timed(times, kind("p", [])), request_header=plain.request_header, screeners=plain.screeners)
    hooks = HookRunner(replace(slots, received=plain.received), spawned)
    hooks.request_header(REQUEST, EditList())
    hooks.screen(REQUEST, CANDIDATES)
    await hooks.produce(REQUEST, CANDIDATES, IN_TASK)
    await hooks.admit(REQUEST, CANDIDATES, IN_TASK)
    await hooks.pre_request(REQUEST, RESULT, EditList(), IN_TASK)
    hooks.received(REQUEST, RESULT, RESPONSE, EditList())
    hooks.streaming(REQUEST, RESULT, chunk(b""), None)
    await spawned.settle()
    hooks.complete(REQUEST, RESULT, COMPLETION, None)
    await spawned.settle()
    assert times == [1.0] * 8


async def test_coroutines_are_timed_from_their_own_start() -> None:
    times: list[float] = []
    spawned = Spawned()
    [hook] = timed(times, AsyncPlugin("p", [])).complete
    HookRunner(Hooks(complete=[hook, hook]), spawned).complete(REQUEST, RESULT, COMPLETION, None)
    await spawned.settle()
    assert times == [1.0, 1.0]
