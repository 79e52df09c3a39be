"""Plugins that raise, return nonsense or sleep: what becomes of the request, straight at the director and through the wire."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from epp.decision.director import Director
from epp.framework.candidates import Candidates
from epp.framework.interfaces import Role
from epp.framework.types import InferenceRequest
from epp.plugin_calls import guard, step
from epp.plugin_calls.defects import EXTENSION_POINTS
from epp.seam import End, Route
from tests.conformance.conftest import StartPicker
from tests.conformance.doubles import double
from tests.conformance.exchanges import pass_chunks
from tests.conformance.picker import A_ADDRESS, B_ADDRESS, A, B, Picker
from tests.conformance.wire import DESTINATION, request_body, request_headers, std_body
from tests.unit.decision.rig import FakeHead, FakeStream, chunk, outcome, request

ONE_BUSY = (A(9, 0.9), B(0, 0.1))
GOES_ON = (
    Role.SCREENER,
    Role.DATA_PRODUCER,
    Role.SCORER,
    Role.RESPONSE_RECEIVED,
    Role.RESPONSE_STREAMING,
    Role.RESPONSE_COMPLETE,
)
"""Roles whose failure no request feels."""
REFUSES = {Role.REQUEST_HEADER: 500, Role.ADMITTER: 500, Role.PRE_REQUEST: 500, Role.FILTER: 429, Role.PICKER: 429}
SLEEP_S = 0.012
"""Over the budget."""
CALLS = guard.OVERRUNS + 2


class Misbehaves:
    """A plugin of all roles that does the same wherever it is called, as a plain function or as a coroutine."""

    def __init__(self, action: Callable[[], object]) -> None:
        self.action = action
        self.calls = 0

    def _act(self, otherwise: object = None) -> Any:
        self.calls += 1
        result = self.action()
        return otherwise if result is None else result

    def process_request(self, *_: object) -> Any:
        return self._act()

    def screen(self, _request: InferenceRequest, candidates: Candidates) -> Any:
        return self._act(candidates)

    def produce(self, *_: object) -> Any:
        return self._act()

    def admit(self, *_: object) -> Any:
        return self._act()

    def filter(self, _request: InferenceRequest, candidates: Candidates) -> Any:
        return self._act(candidates)

    def score(self, _request: InferenceRequest, candidates: Candidates) -> Any:
        return self._act([1.0] + [0.0] * (len(candidates) - 1))

    def pick(self, *_: object) -> Any:
        return self._act([1])

    def pre_request(self, *_: object) -> Any:
        return self._act()

    def response_received(self, *_: object) -> Any:
        return self._act()

    def response_streaming(self, *_: object) -> Any:
        return self._act()

    def response_complete(self, *_: object) -> Any:
        return self._act()


class Waits(Misbehaves):
    """Coroutines that never return."""

    async def produce(self, *_: object) -> None:
        self.calls += 1
        await asyncio.Event().wait()

    async def admit(self, *_: object) -> None:
        self.calls += 1
        await asyncio.Event().wait()

    async def pre_request(self, *_: object) -> None:
        self.calls += 1
        await asyncio.Event().wait()

    async def response_streaming(self, *_: object) -> None:
        self.calls += 1
        await asyncio.Event().wait()

    async def response_complete(self, *_: object) -> None:
        self.calls += 1
        await asyncio.Event().wait()


def raises() -> object:
    raise ZeroDivisionError("secret")


sleeps = partial(time.sleep, SLEEP_S)
SCORES: dict[str, Callable[[], object]] = {
    "raises": raises,
    "NaN": lambda: [float("nan"), float("nan")],
    "too few": lambda: [1.0],
    "too many": lambda: [1.0, 0.0, 0.0],
    "no list": lambda: 5,
    "text": lambda: "10",
}


class AtDirector:
    """Hands requests to the director itself, and responses with one chunk."""

    def __init__(self, picker: Picker) -> None:
        self._director: Director = picker.director

    async def send(self) -> tuple[int, str]:
        """Status and target; 200 once the response was seen to its end, no target if the request was refused."""
        stream = FakeStream()
        self._director.request(stream, request())
        async with asyncio.timeout(10):
            await stream.answered.wait()
        if not isinstance(stream.answers[0], Route):
            self._director.finished(stream, outcome(End.REPLIED))
            return stream.reply.status, ""
        self._director.response_headers(stream, FakeHead())  # type: ignore[arg-type]  # as far as it is read
        self._director.response_body(stream, [chunk(b"data: 1", end=False)])
        self._director.finished(stream, outcome())
        return 200, dict(stream.route.headers.set)[DESTINATION]


class AtWire:
    """Sends requests and responses through the transport."""

    def __init__(self, picker: Picker) -> None:
        self._picker = picker

    async def send(self) -> tuple[int, str]:
        """As ``AtDirector.send``."""
        stream = self._picker.stream()
        await stream.send(request_headers(), request_body(std_body("m", "p")))
        message = await stream.raw()
        assert message is not None
        if message.HasField("immediate_response"):
            await stream.ends()
            return message.immediate_response.status.code, ""
        set_headers = message.request_headers.response.header_mutation.set_headers
        await stream.answer("request_body")
        await pass_chunks(stream, [b"data: 1\n\n"])
        return 200, next(o.header.raw_value.decode() for o in set_headers if o.header.key == DESTINATION)


each_level = pytest.mark.parametrize("level", [AtDirector, AtWire])


async def send(level: type[AtDirector | AtWire], picker: Picker, count: int = 1) -> set[tuple[int, str]]:
    """What became of so many requests, one after the other; all that runs behind them is over."""
    found = {await level(picker).send() for _ in range(count)}
    while tasks := list(picker.runtime._tasks):
        await asyncio.wait(tasks)
    return found


def by_point(picker: Picker, family: str) -> dict[str, float]:
    """Samples of a family by extension point; those of the test's plugin."""
    return {point: value for (point, _, name), value in picker.series(family).items() if name == "bad"}


@each_level
@pytest.mark.parametrize("role", GOES_ON)
async def test_one_that_raises_is_counted_and_the_request_goes_on(
    start: StartPicker, level: type[AtDirector | AtWire], role: Role
) -> None:
    picker = await start(*ONE_BUSY, doubles=[double(Misbehaves(raises), role, name="bad")])
    assert await send(level, picker, 2) == {(200, B_ADDRESS)}
    assert by_point(picker, "plugin_errors_total") == {EXTENSION_POINTS[role]: 2}


@each_level
async def test_one_that_raises_in_every_hook(start: StartPicker, level: type[AtDirector | AtWire]) -> None:
    picker = await start(*ONE_BUSY, doubles=[double(Misbehaves(raises), *GOES_ON, name="bad")])
    assert await send(level, picker, 10) == {(200, B_ADDRESS)}
    assert by_point(picker, "plugin_errors_total") == {EXTENSION_POINTS[role]: 10 for role in GOES_ON}
    assert by_point(picker, "plugin_skipped") == {}, "raising is not slow"


@each_level
@pytest.mark.parametrize(("role", "status"), REFUSES.items())
async def test_one_that_may_refuse_never_fails_open(
    start: StartPicker, level: type[AtDirector | AtWire], role: Role, status: int
) -> None:
    picker = await start(*ONE_BUSY, doubles=[double(Misbehaves(raises), role, name="bad")])
    assert await send(level, picker, 10) == {(status, "")}
    assert by_point(picker, "plugin_errors_total") == {EXTENSION_POINTS[role]: 10}


@each_level
@pytest.mark.parametrize("scores", SCORES.values(), ids=SCORES)
async def test_a_scorer_that_returns_nonsense_scores_0(
    start: StartPicker, level: type[AtDirector | AtWire], scores: Callable[[], object]
) -> None:
    picker = await start(*ONE_BUSY, doubles=[double(Misbehaves(scores), Role.SCORER, name="bad")])
    assert await send(level, picker) == {(200, B_ADDRESS)}
    assert by_point(picker, "plugin_errors_total") == {"Scorer": 1}


@each_level
@pytest.mark.parametrize("role", [*GOES_ON, Role.PRE_REQUEST])
async def test_one_that_sleeps_is_left_out(start: StartPicker, level: type[AtDirector | AtWire], role: Role) -> None:
    plugin = Misbehaves(sleeps)
    picker = await start(*ONE_BUSY, doubles=[double(plugin, role, name="bad")])
    point = EXTENSION_POINTS[role]
    assert await send(level, picker, CALLS) == {(200, B_ADDRESS)}
    assert plugin.calls == guard.OVERRUNS
    assert by_point(picker, "plugin_overruns_total") == {point: guard.OVERRUNS}
    assert by_point(picker, "plugin_skipped") == {point: 1}
    assert by_point(picker, "plugin_skipped_calls_total") == {point: CALLS - guard.OVERRUNS}


@each_level
@pytest.mark.parametrize("role", [Role.FILTER, Role.PICKER, Role.ADMITTER, Role.REQUEST_HEADER])
async def test_one_that_sleeps_where_requests_cannot_do_without_it_is_named(
    start: StartPicker, level: type[AtDirector | AtWire], role: Role, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = Misbehaves(sleeps)
    picker = await start(*ONE_BUSY, doubles=[double(plugin, role, name="bad")])
    assert await send(level, picker, CALLS) == {(200, B_ADDRESS)}
    assert plugin.calls == CALLS
    assert by_point(picker, "plugin_overruns_total") == {EXTENSION_POINTS[role]: CALLS}
    assert by_point(picker, "plugin_skipped") == {}
    assert [r.getMessage() for r in caplog.records if r.name == "epp.plugins"] == ["plugin too slow"]


async def test_the_end_of_a_request_is_told_to_whom_its_beginning_was(start: StartPicker) -> None:
    plugin = Misbehaves(sleeps)
    picker = await start(*ONE_BUSY, doubles=[double(plugin, Role.PRE_REQUEST, Role.RESPONSE_COMPLETE, name="bad")])
    await send(AtDirector, picker, CALLS)
    assert by_point(picker, "plugin_skipped") == {"PreRequest": 1}
    assert plugin.calls == guard.OVERRUNS + CALLS


async def test_the_scorer_that_is_left_out_no_longer_decides(start: StartPicker) -> None:
    plugin = Misbehaves(sleeps)
    picker = await start(*(A(), B()), doubles=[double(plugin, Role.SCORER, name="bad")], config={"scorers": ["queue-scorer"]})
    first = await send(AtDirector, picker, guard.OVERRUNS)
    assert first == {(200, A_ADDRESS)}, "it prefers the first"
    later = await send(AtDirector, picker, 40)
    assert later == {(200, A_ADDRESS), (200, B_ADDRESS)}, "all others are equal"


@each_level
@pytest.mark.parametrize(
    ("role", "status"), [(Role.DATA_PRODUCER, 200), (Role.RESPONSE_STREAMING, 200), (Role.RESPONSE_COMPLETE, 200)]
)
async def test_a_coroutine_that_never_ends_is_left_out(
    start: StartPicker, level: type[AtDirector | AtWire], role: Role, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "HOOK_DEADLINE_S", 0.01)
    plugin = Waits(sleeps)
    picker = await start(*ONE_BUSY, doubles=[double(plugin, role, name="bad")])
    point = EXTENSION_POINTS[role]
    assert await send(level, picker, guard.OVERRUNS) == {(status, B_ADDRESS)}
    assert await send(level, picker, 2) == {(status, B_ADDRESS)}
    assert plugin.calls == guard.OVERRUNS
    assert by_point(picker, "plugin_errors_total") == {point: guard.OVERRUNS}
    assert by_point(picker, "plugin_skipped") == {point: 1}


@each_level
@pytest.mark.parametrize("role", [Role.ADMITTER, Role.PRE_REQUEST])
async def test_a_coroutine_that_may_refuse_and_never_ends_refuses(
    start: StartPicker, level: type[AtDirector | AtWire], role: Role, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "HOOK_DEADLINE_S", 0.01)
    picker = await start(*ONE_BUSY, doubles=[double(Waits(sleeps), role, name="bad")])
    assert await send(level, picker, 2) == {(500, "")}
    assert by_point(picker, "plugin_errors_total") == {EXTENSION_POINTS[role]: 2}


@each_level
async def test_one_that_became_quick_is_taken_back(
    start: StartPicker, level: type[AtDirector | AtWire], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = Misbehaves(sleeps)
    picker = await start(*ONE_BUSY, doubles=[double(plugin, Role.SCORER, name="bad")])
    monkeypatch.setattr(guard, "SKIP_S", 0.0)
    await send(level, picker, guard.OVERRUNS + 1)
    assert plugin.calls == guard.OVERRUNS + 1, "a trial"
    assert by_point(picker, "plugin_skipped") == {"Scorer": 1}
    plugin.action = lambda: None
    await send(level, picker, 3)
    assert plugin.calls == guard.OVERRUNS + 4
    assert by_point(picker, "plugin_skipped") == {"Scorer": 0}
    messages = [record.getMessage() for record in caplog.records if record.name == "epp.plugins"]
    assert messages == ["plugin left out", "plugin left out", "plugin taken back"]
