"""The model that is sent: rules, the header that names one, and the client's name in the response."""

from __future__ import annotations

import pytest

from epp.datalayer.objects import InferenceModelRewrite
from epp.seam import Rename
from tests.unit.decision.rig import Rig, request
from tests.unit.decision.vocabulary import MODEL_HEADER, rule


def forwarded(rig: Rig, body: bytes, headers: dict[str, str] | None = None, path: str = "/v1/completions") -> bytes:
    route = rig.send(request(body, path=path, headers=headers)).route
    for start, end, new in reversed(route.splices):
        body = body[:start] + new + body[end:]
    return body


BODY = b'{ "prompt":"x", "model" : "m","n":1,"big":12345678901234567890,"f":1.0}'


@pytest.mark.parametrize(
    ("rules", "headers", "sent", "rewrites"),
    [
        pytest.param([], {}, b"m", None, id="as it came"),
        pytest.param([], MODEL_HEADER, b"h", None, id="header"),
        pytest.param([], {"x-gateway-model-name-rewrite": "h"}, b"h", None, id="header, older name"),
        pytest.param([], {"x-llm-d-model-name-rewrite": ""}, b"m", None, id="empty header"),
        pytest.param([rule("r", "t", "m")], {}, b"t", ("r", "m", "t"), id="C15 rule"),
        pytest.param([rule("r", "t", "m")], MODEL_HEADER, b"t", ("r", "m", "t"), id="C16 rule and header"),
        pytest.param([rule("r", "t", "other")], MODEL_HEADER, b"h", None, id="rule of another model"),
        pytest.param([rule("r", "t")], {}, b"t", ("r", "m", "t"), id="generic rule"),
        pytest.param([rule("r", "m", "m")], {}, b"m", ("r", "m", "m"), id="rule that keeps the name"),
    ],
)
def test_the_model_that_is_sent(
    rules: list[InferenceModelRewrite], headers: dict[str, str], sent: bytes, rewrites: tuple[str, str, str] | None
) -> None:
    rig = Rig()
    for each in rules:
        rig.objects.put(each)
    assert forwarded(rig, BODY, headers) == BODY.replace(b'"m"', b'"' + sent + b'"')
    names = dict(zip(("model_rewrite_name", "model_name", "target_model"), rewrites or (), strict=bool(rewrites)))
    assert rig.count("model_rewrite_decisions_total", **names) == (1 if rewrites else None)
    name = sent.decode()
    assert rig.count("request_total", model_name="m", target_model_name=name, fairness_id="default-flow", priority="0") == 1


@pytest.mark.parametrize(
    ("rules", "headers"),
    [([rule("r", "g")], {}), ([], {"x-llm-d-model-name-rewrite": "g"})],
    ids=["C17 generic rule", "header"],
)
def test_a_missing_model_can_be_supplied(rules: list[InferenceModelRewrite], headers: dict[str, str]) -> None:
    rig = Rig()
    for each in rules:
        rig.objects.put(each)
    assert forwarded(rig, b'{"prompt":"x"}', headers) == b'{"model":"g","prompt":"x"}'
    stream = rig.send(request(b'{"prompt":"x"}', headers=headers))
    assert stream.flight.inference.model == ""
    assert stream.route.plan.rename is None, "there is no name to restore"


@pytest.mark.parametrize("body", [{"prompt": "x"}, {"prompt": "x", "model": ""}, {"prompt": "x", "model": 5}], ids=repr)
@pytest.mark.parametrize("endpoints", ["", "abc"], ids=["without endpoints", "with endpoints"])
def test_without_any_model(body: object, endpoints: str) -> None:
    reply = Rig(endpoints=endpoints).send(request(body)).reply
    assert reply.status == 400, "C46: no model; C59: which is checked before the endpoints"
    assert b"inference error: BadRequest - model not found in request body" in reply.body


@pytest.mark.parametrize(
    ("headers", "rename"), [(MODEL_HEADER, Rename("model", "h", "m")), ({}, None), ({"x-llm-d-model-name-rewrite": "m"}, None)]
)
def test_the_clients_name_is_restored_in_the_response(headers: dict[str, str], rename: Rename | None) -> None:
    assert Rig().send(request(BODY, headers=headers)).route.plan.rename == rename


def test_an_unread_body_is_not_rewritten() -> None:
    rig = Rig()
    rig.objects.put(rule("r", "g"))
    assert forwarded(rig, b"passthrough-parser", MODEL_HEADER, "/other") == b"passthrough-parser", "C20: passed through"
    assert rig.count("request_total", model_name="h", target_model_name="h") == 1
    assert rig.count("model_rewrite_decisions_total") is None
