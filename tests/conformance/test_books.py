"""Plugins with books, on the wire: sessions are told with the response headers, load is taken off at the end."""

from __future__ import annotations

import base64

from tests.conformance.conftest import StartPicker
from tests.conformance.exchanges import routed
from tests.conformance.picker import A, B, C, Picker
from tests.conformance.wire import request_body, request_headers, respond, response_body, response_headers, std_body

TOKEN = "x-session-token"
NAMES = {"default/a": "192.168.1.1:8000", "default/b": "192.168.1.2:8000", "default/c": "192.168.1.3:8000"}


async def first_answer(picker: Picker, *, forged: str = "") -> str:
    """The token that a client without a session is given."""
    stream = await routed(picker)
    extra = {TOKEN: forged} if forged else {}
    headers, _ = await respond(stream, response_headers(extra), response_body(b"{}"))
    await stream.closes()
    return dict(headers.set)[TOKEN]


async def test_c86_a_session_returns_to_its_endpoint(start: StartPicker) -> None:
    picker = await start(A(), B(), C(), config={"scorers": ("session-affinity-scorer",)})
    token = await first_answer(picker)
    address = NAMES[base64.b64decode(token).decode()]
    for _ in range(8):
        answer = await picker.route(request_headers({TOKEN: token}), request_body(std_body("m", "p")))
        assert answer.target == address
        assert TOKEN not in answer.headers.removed, "it is the client's to keep"


async def test_a_token_from_the_model_server_is_replaced(start: StartPicker) -> None:
    picker = await start(A(), config={"scorers": ("session-affinity-scorer",)})
    assert base64.b64decode(await first_answer(picker, forged="bm9ib2R5")).decode() == "default/a"


async def test_a_session_whose_endpoint_left_goes_elsewhere_and_is_told(start: StartPicker) -> None:
    picker = await start(A(), B(), config={"scorers": ("session-affinity-scorer",)})
    picker.serve([B()])
    left = base64.b64encode(b"default/a").decode()
    answer = await picker.route(request_headers({TOKEN: left}), request_body(std_body("m", "p")))
    assert answer.target == "192.168.1.2:8000"


async def test_the_load_in_flight_is_taken_off_on_the_wire(start: StartPicker) -> None:
    picker = await start(A(), B(), config={"scorers": ("token-load-scorer",)})
    long_prompt = std_body("m", "p" * 4000)
    stream = await routed(picker, long_prompt)
    other = await picker.route(request_headers(), request_body(long_prompt))
    load = picker.instances.by_name["inflight-load-producer"]
    state = load.debug_state()  # type: ignore[attr-defined]
    assert state["requests"] == 1
    (busy,) = state["endpoints"]
    assert NAMES[busy] != other.target
    await respond(stream, response_headers(), response_body(b"{}"))
    await stream.closes()
    await picker.round_trip()
    assert load.debug_state() == {"requests": 0, "endpoints": {}}  # type: ignore[attr-defined]
