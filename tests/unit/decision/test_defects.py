"""What plugins do wrong, and what we do: no path ends without an answer."""

from __future__ import annotations

import pytest

from epp.datalayer.objects import GROUP, InferenceObjective, ObjectKey
from epp.framework.candidates import Candidates
from epp.framework.direct import DirectRequest
from epp.framework.interfaces import Role
from epp.hooks.slots import Hooks
from epp.plugin_calls import step
from tests.unit.decision.rig import AsyncPlugin, Plugin, Rig, hook, hooks, request
from tests.unit.decision.vocabulary import BUG
from tests.unit.decision.waiting import Direct, for_ever


@pytest.mark.parametrize("kind", [Plugin, AsyncPlugin])
async def test_a_producer_that_fails_costs_only_its_data(kind: type[Plugin]) -> None:
    rig = Rig(hooks(kind("p", [], produce=BUG), slots=["producers"]))
    assert (await rig.sent()).route, "C58: routed without its data"
    assert [text for _, _, text in rig.reports.seen] == ["secret"]


async def test_a_slow_producer_costs_only_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "HOOK_DEADLINE_S", 0.01)
    rig = Rig(hooks(AsyncPlugin("p", [], produce=for_ever), slots=["producers"]))
    assert (await rig.sent()).route, "C58: routed without its data"


@pytest.mark.parametrize("reply", [5, "text", {"status": 200}], ids=str)
async def test_a_responder_that_answers_with_a_wrong_type_is_a_defect(reply: object) -> None:
    async def wrong(_: DirectRequest) -> object:
        return reply

    rig = Rig(Hooks(responders=[hook(Role.DIRECT_RESPONDER, Direct(wrong))]))
    stream = await rig.sent()
    assert stream.reply.status == 500
    assert [(role, name) for role, name, _ in rig.reports.seen] == [(Role.DIRECT_RESPONDER, "direct")]


async def test_a_rewriter_that_cannot_say_whether_it_rewrites_is_a_defect() -> None:
    class Broken:
        name = "broken"

        def rewrites(self, request: object) -> bool:
            raise ZeroDivisionError

        def rewrite(self, request: object, edits: object) -> None:
            raise AssertionError

    rig = Rig(Hooks(rewriters=[hook(Role.BODY_REWRITER, Broken())]))
    assert (await rig.sent()).reply.status == 500
    assert [(role, name) for role, name, _ in rig.reports.seen] == [(Role.BODY_REWRITER, "broken")]


@pytest.mark.parametrize("kind", [Plugin, AsyncPlugin])
async def test_a_defect_of_ours_is_an_internal_error(kind: type[Plugin]) -> None:
    class Broken:
        def saturation(self, candidates: Candidates) -> float:
            raise BUG

    rig = Rig(hooks(kind("p", []), slots=["producers"]), detector=Broken())
    rig.objects.put(InferenceObjective(ObjectKey(GROUP, "default", "o"), priority=-1))
    stream = await rig.sent(request(path="/other", headers={"x-llm-d-inference-objective": "o"}))
    assert (stream.reply.status, stream.reply.body) == (500, b"inference error: Internal - internal error"), (
        "C61: an unexpected exception"
    )
    assert [error for _, error in rig.failures] == [BUG]
    assert rig.count("request_error_total", error_code="Internal") == 1
