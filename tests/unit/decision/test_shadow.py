"""A second configuration at the director: when it decides, what its plugins are told, what it leaves out."""

from __future__ import annotations

import asyncio

import pytest

from epp.decision.candidates import CandidateFinder
from epp.decision.pipeline import Pipeline, PipelineInUse
from epp.decision.shadow import BUDGET, BURST_S, MAX_WAITING, QUEUE, TIME, Shadow
from epp.errors import ErrorCode, RequestError
from epp.framework.testing import FakeClock, make_plugin
from epp.framework.types import Completion, Endpoint
from epp.hooks.runner import HookRunner
from epp.seam import End
from epp.telemetry.shadow_comparison import Verdict
from plugins.profile_handlers import single
from tests.unit.decision.rig import NO_HOOKS, AsyncPlugin, FakeStream, Plugin, Rig, hooks, outcome, reporting
from tests.unit.scheduling.doubles import Does, make_profile, make_scheduler


class Both:
    """A director whose endpoint is c, and a shadow whose endpoint is a.

    Args:
        plugin: of all hooks of the shadow.
        share: of the requests.
        deciding_s: how long a turn of the shadow takes by its stopwatch.
    """

    def __init__(self, plugin: Plugin | None = None, *, share: float = 1.0, deciding_s: float = 0.0) -> None:
        self.rig = rig = Rig()
        self.clock = FakeClock()
        self._watch_s, self._turn_s = 0.0, deciding_s
        falling = Does(lambda candidates: [1 - i / 8 for i in range(len(candidates))])
        live = rig.director.pipeline
        scheduler = make_scheduler(make_plugin(single.PLUGIN), make_profile(scorers=[(falling, 1.0)]))
        own = reporting(hooks(plugin), rig.reports) if plugin is not None else NO_HOOKS
        self.used = PipelineInUse(Pipeline(live.parsers, scheduler, HookRunner(own, rig.runtime.spawn)))
        self.shadow = rig.director.shadow = Shadow(
            self.used,
            CandidateFinder(rig.store),
            rig.metrics,
            rig.runtime.spawn,
            share=share,
            clock=self.clock,
            stopwatch=self._stopwatch,
        )

    def _stopwatch(self) -> float:
        self._watch_s += self._turn_s
        return self._watch_s

    def send(self) -> FakeStream:
        """A request, answered at once."""
        stream = self.rig.send()
        assert stream.answers
        return stream

    def end(self, stream: FakeStream) -> None:
        self.rig.director.finished(stream, outcome())


async def test_it_decides_after_the_answer_in_a_later_turn() -> None:
    journal: list[str] = []
    both = Both(Plugin("shadow", journal))
    stream = both.send()
    assert journal == [], "the answer was given, nothing of the shadow has run"
    await both.rig.settle()
    assert journal[-1] == "shadow.pre_request"
    (found,) = both.shadow.tally.recent
    assert (found.live, found.shadow, found.margin) == ("192.168.1.3:8000", "192.168.1.1:8000", 0.25)
    both.end(stream)
    await both.rig.settle()
    assert journal[-2:] == ["shadow.response_received", "shadow.response_complete"]
    assert both.used.open_requests == 0


@pytest.mark.parametrize("kind", [Plugin, AsyncPlugin])
async def test_its_plugins_are_told_what_was_done(kind: type[Plugin]) -> None:
    told: list[Endpoint] = []

    def before(_request: object, result: object, _edits: object) -> None:
        told.append(result.target)  # type: ignore[attr-defined]

    def after(_request: object, result: object, completion: Completion) -> None:
        told.extend([result.target, completion.served])  # type: ignore[attr-defined]
        completion.metadata["of the shadow"] = {}

    both = Both(kind("shadow", [], pre_request=before, response_complete=after))
    stream = both.send()
    assert both.rig.director.finished(stream, outcome()) is None, "what it writes does not reach the data plane"
    await both.rig.settle()
    assert [endpoint.name for endpoint in told] == ["c", "c", "c"]
    assert both.used.open_requests == 0


REFUSES = RequestError(ErrorCode.RESOURCE_EXHAUSTED, "not now")


@pytest.mark.parametrize(
    ("does", "verdict"),
    [
        pytest.param({"process_request": REFUSES}, Verdict.REFUSED, id="a refusal of headers"),
        pytest.param({"admit": "full"}, Verdict.REFUSED, id="a denial"),
        pytest.param({"screen": lambda _, candidates: []}, Verdict.REFUSED, id="nobody is left"),
        pytest.param({"process_request": ZeroDivisionError()}, Verdict.FAILED, id="a defect where requests can be refused"),
        pytest.param({"produce": ZeroDivisionError()}, Verdict.DISAGREE, id="a defect that decisions do without"),
        pytest.param({"pre_request": REFUSES}, Verdict.DISAGREE, id="a refusal when it is told"),
    ],
)
async def test_what_its_plugins_do_stays_with_it(does: dict[str, object], verdict: Verdict) -> None:
    journal: list[str] = []
    both = Both(Plugin("shadow", journal, **does))
    stream = both.send()
    assert stream.route
    await both.rig.settle()
    both.end(stream)
    await both.rig.settle()
    assert both.shadow.tally.verdicts[verdict] == 1
    assert {"shadow.pre_request", "shadow.response_complete"} <= set(journal), "it learns all the same"
    assert both.rig.count("shadow_decisions_total", result=verdict.value) == 1


async def test_one_that_waits_holds_up_the_shadow_alone() -> None:
    waits = asyncio.Event()
    both = Both(AsyncPlugin("shadow", [], produce=lambda *_: waits.wait()))
    streams = [both.send() for _ in range(MAX_WAITING + 3)]
    assert all(stream.route for stream in streams)
    assert both.shadow.tally.skipped == {QUEUE: 3}
    assert both.rig.count("shadow_skipped_total", reason=QUEUE) == 3
    await asyncio.sleep(0)
    assert both.send().route
    assert both.shadow.waiting == MAX_WAITING
    waits.set()
    await both.rig.settle()
    assert both.shadow.tally.verdicts[Verdict.DISAGREE] == MAX_WAITING + 1


async def test_it_gets_no_more_than_its_share_of_time() -> None:
    both = Both(deciding_s=2 * BURST_S)
    both.end(both.send())
    await both.rig.settle()
    both.end(both.send())
    assert both.shadow.tally.skipped == {TIME: 1}
    both.clock.advance(100 * BURST_S / BUDGET)
    both.send()
    assert both.shadow.waiting == 1


@pytest.mark.parametrize(("share", "shown"), [(0.0, 0), (0.25, 2), (0.5, 4), (1.0, 8)])
async def test_a_share_is_shown(share: float, shown: int) -> None:
    both = Both(share=share)
    for _ in range(8):
        both.end(both.send())
    await both.rig.settle()
    assert sum(both.shadow.tally.verdicts.values()) == shown
    assert both.used.open_requests == 0


async def test_a_retired_one_hears_the_ends_of_what_it_was_told_and_no_more() -> None:
    journal: list[str] = []
    idle: list[bool] = []
    both = Both(Plugin("shadow", journal))
    told = both.send()
    await both.rig.settle()
    waiting = both.send()
    both.shadow.retire(lambda: idle.append(True))
    both.rig.director.shadow = None
    journal.clear()
    await both.rig.settle()
    both.end(waiting)
    await both.rig.settle()
    assert (journal, idle) == ([], [])
    both.end(told)
    await both.rig.settle()
    assert journal == ["shadow.response_received", "shadow.response_complete"]
    assert idle == [True]


async def test_a_request_that_is_over_before_it_is_shown() -> None:
    journal: list[str] = []
    both = Both(Plugin("shadow", journal))
    stream = both.send()
    both.rig.director.finished(stream, outcome(End.DISCONNECTED, head=None))
    await both.rig.settle()
    assert [call for call in journal if "request" in call or "response" in call][-2:] == [
        "shadow.pre_request",
        "shadow.response_complete",
    ]
    assert both.used.open_requests == 0
