"""Plugins that answer requests themselves, and plugins that rewrite bodies: what the director makes of them."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable
from typing import Any

import pytest

from epp.decision import progress
from epp.errors import ErrorCode, RequestError
from epp.extproc.body import splice
from epp.framework.direct import DirectReply, DirectRequest
from epp.framework.interfaces import Role
from epp.framework.rewriting import BodyEdits
from epp.framework.types import InferenceRequest
from epp.hooks.slots import Hooks
from epp.seam import BodyState, Outcome
from tests.unit.decision.rig import COMPLETION, AsyncPlugin, Plugin, Rig, hook, hooks, outcome, request


class Responder:
    """Claims ``/mine``; does what it is told."""

    name = "direct"

    def __init__(self, does: Callable[[DirectRequest], Any], claims: object = None) -> None:
        self.does = does
        self.claims = claims
        self.seen: list[DirectRequest] = []

    def answers(self, method: str, path: str) -> bool:
        if isinstance(self.claims, Exception):
            raise self.claims
        return path.startswith("/v1/mine")

    def respond(self, request: DirectRequest) -> Any:
        self.seen.append(request)
        return self.does(request)


class Rewriter:
    """Rewrites bodies that say so."""

    name = "rewriter"

    def __init__(self, does: Callable[[InferenceRequest, BodyEdits], Any]) -> None:
        self.does = does

    def rewrites(self, request: InferenceRequest) -> bool:
        return "rewrite" in request.body.document

    def rewrite(self, request: InferenceRequest, edits: BodyEdits) -> Any:
        return self.does(request, edits)


def responding(*plugins: Responder) -> Hooks:
    return Hooks(responders=[hook(Role.DIRECT_RESPONDER, p) for p in plugins])


def rewriting(does: Callable[[InferenceRequest, BodyEdits], Any], **more: Any) -> Rig:
    return Rig(Hooks(rewriters=[hook(Role.BODY_REWRITER, Rewriter(does))]), **more)


def raises(error: Exception) -> Callable[..., Any]:
    def fail(*args: object) -> None:
        raise error

    return fail


async def later(value: Any) -> Any:
    await asyncio.sleep(0)
    return value


REPLY = DirectReply(b'{"mine":true}', 201)


@pytest.mark.parametrize("does", [lambda _: REPLY, lambda _: later(REPLY)], ids=["at once", "later"])
@pytest.mark.parametrize("state", [BodyState.COMPLETE, BodyState.ABSENT])
async def test_a_plugin_answers(does: Callable[[DirectRequest], Any], state: BodyState) -> None:
    plugin = Responder(does)
    rig = Rig(responding(plugin), endpoints="")
    headers = {":method": "DELETE", "x-llm-d-inference-fairness-id": "tenant"}
    stream = await rig.sent(request(b"no JSON", path="/v1/mine/1?a=b&c", headers=headers, state=state))
    assert (stream.reply.status, stream.reply.body) == (201, b'{"mine":true}')
    assert stream.reply.headers == (("content-type", "application/json"),)
    (seen,) = plugin.seen
    assert (seen.method, seen.path, seen.query, seen.fairness_id) == ("DELETE", "/v1/mine/1", "a=b&c", "tenant")
    assert bytes(seen.body) == (b"no JSON" if state is BodyState.COMPLETE else b"")
    assert rig.director.finished(stream, outcome()) is None
    assert rig.count("request_total") is None, "nothing was scheduled"


async def test_a_plugin_is_shown_what_a_content_coding_hid() -> None:
    plugin = Responder(lambda _: REPLY)
    sent = request(gzip.compress(b"its own"), path="/v1/mine", headers={"content-encoding": "gzip"})
    await Rig(responding(plugin)).sent(sent)
    assert bytes(plugin.seen[0].body) == b"its own"


@pytest.mark.parametrize("does", [lambda _: None, lambda _: later(None)], ids=["at once", "later"])
async def test_a_plugin_declines(does: Callable[[DirectRequest], Any]) -> None:
    rig = Rig(responding(Responder(does)))
    stream = await rig.sent(request(path="/v1/mine/completions"))
    assert dict(stream.route.headers.set)["x-gateway-destination-endpoint"] == "192.168.1.3:8000"


def test_requests_of_others_do_not_wait() -> None:
    rig = Rig(responding(Responder(raises(AssertionError()))))
    assert rig.send(request()).route
    assert rig.send(request(path="/v1/mine", state=BodyState.UNSEEN)).route, "an answer needs the whole request"


@pytest.mark.parametrize(
    ("does", "status", "text"),
    [
        pytest.param(raises(RequestError(ErrorCode.NOT_FOUND, "not mine")), 404, "NotFound - not mine", id="refuses"),
        pytest.param(raises(ZeroDivisionError()), 500, "Internal - internal error", id="fails"),
        pytest.param(lambda _: asyncio.sleep(60), 503, "ServiceUnavailable - no decision in time", id="is slow"),
    ],
)
async def test_answers_that_fail(does: Any, status: int, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "DECISION_DEADLINE_S", 0.02)
    rig = Rig(responding(Responder(does)))
    stream = await rig.sent(request(path="/v1/mine"))
    assert stream.reply.status == status
    assert text in json.loads(stream.reply.body)["error"]["message"]
    assert len(rig.reports.seen) == (status == 500)


async def test_a_claim_that_fails_is_reported_and_passed_over() -> None:
    second = Responder(lambda _: REPLY)
    rig = Rig(responding(Responder(lambda _: None, claims=ZeroDivisionError()), second))
    assert (await rig.sent(request(path="/v1/mine"))).reply.status == 201
    assert len(rig.reports.seen) == 1


async def test_an_answer_is_withdrawn_when_the_stream_ends() -> None:
    rig = Rig(responding(Responder(lambda _: asyncio.sleep(60))))
    stream = rig.send(request(path="/v1/mine"))
    await asyncio.sleep(0)
    rig.director.finished(stream, outcome())
    await rig.settle()
    assert not stream.answers


def forwarded(stream: Any, body: bytes) -> bytes:
    return bytes(splice(memoryview(body), stream.route.splices))


BODY = {"rewrite": 1, "input": [3], "model": "m", "prompt": "p"}


def change(request: InferenceRequest, edits: BodyEdits) -> None:
    edits.remove("rewrite")
    edits.prepend("input", [1, 2])


@pytest.mark.parametrize("does", [change, lambda r, e: later(change(r, e))], ids=["at once", "later"])
@pytest.mark.parametrize("target", ["", "other"])
async def test_a_plugin_rewrites_the_body(does: Any, target: str) -> None:
    seen: list[InferenceRequest] = []
    journal: list[str] = []
    watcher = Plugin("w", journal, produce=lambda request, _: seen.append(request))
    slots = hooks(watcher, slots=["producers"])
    slots = Hooks(rewriters=[hook(Role.BODY_REWRITER, Rewriter(does))], producers=slots.producers)
    body = json.dumps(BODY).encode()
    rig = Rig(slots)
    headers = {"x-llm-d-model-name-rewrite": target} if target else {}
    stream = await rig.sent(request(body, headers=headers))
    after = {"input": [1, 2, 3], "model": target or "m", "prompt": "p"}
    assert json.loads(forwarded(stream, body)) == after
    assert seen[0].body.document == {**after, "model": "m"}, "who comes later sees the new body"
    assert seen[0].size_bytes == len(forwarded(stream, body))


def test_bodies_that_no_plugin_wants_are_not_touched_and_do_not_wait() -> None:
    rig = rewriting(raises(AssertionError()))
    assert rig.send(request(COMPLETION)).route.splices == ()


async def test_other_requests_that_wait_are_not_touched() -> None:
    slots = hooks(AsyncPlugin("p", []), slots=["producers"])
    rewriter = Rewriter(raises(AssertionError()))
    rig = Rig(Hooks(rewriters=[hook(Role.BODY_REWRITER, rewriter)], producers=slots.producers))
    assert (await rig.sent(request(COMPLETION))).route.splices == ()
    assert (await rig.sent(request(state=BodyState.UNSEEN))).route.splices == ()


@pytest.mark.parametrize(
    ("does", "status", "text"),
    [
        pytest.param(raises(RequestError(ErrorCode.NOT_FOUND, "gone")), 404, "NotFound - gone", id="refuses"),
        pytest.param(raises(ZeroDivisionError()), 500, "Internal - internal error", id="fails"),
        pytest.param(lambda r, e: e.set("model", "x"), 500, "Internal - internal error", id="changes the model"),
        pytest.param(lambda r, e: asyncio.sleep(60), 503, "no decision in time", id="is slow"),
    ],
)
async def test_rewriters_that_fail(does: Any, status: int, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "DECISION_DEADLINE_S", 0.02)
    rig = rewriting(does)
    stream = await rig.sent(request(BODY))
    assert stream.reply.status == status
    assert text in json.loads(stream.reply.body)["error"]["message"]
    assert len(rig.reports.seen) == (status == 500)


def test_the_document_of_a_response_is_read_on_demand_only() -> None:
    body = {"model": "m", "input": "hi"}
    usual = Rig(hooks(Plugin("c", []), slots=["complete"])).send(request(body, path="/v1/responses")).route
    assert usual.plan.readers == ("openai-usage",)
    slots = Hooks(complete=hooks(Plugin("c", []), slots=["complete"]).complete, reads_document=True)
    assert Rig(slots).send(request(body, path="/v1/responses")).route.plan.readers == ("openai-usage", "openai-response")
    assert Rig(slots).send(request()).route.plan.readers == ("openai-usage",), "other APIs have no such document"


@pytest.mark.parametrize(
    ("facts", "document"),
    [
        ({"read": ("usage", b"{}")}, b"{}"),
        ({"read": ("usage", None)}, None),
        ({"read": ()}, None),
        ({"read": ("usage", b"{}"), "complete": False}, None),
    ],
)
def test_what_plugins_get_of_a_response(facts: dict[str, Any], document: bytes | None) -> None:
    seen: list[Any] = []
    rig = Rig(hooks(Plugin("c", [], response_complete=lambda request, result, done: seen.append(done)), slots=["complete"]))
    stream = rig.send(request())
    end: Outcome = outcome(**facts)
    rig.director.finished(stream, end)
    assert [done.document for done in seen] == [document]
