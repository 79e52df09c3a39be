"""The subset hint, and requests without a body: cases C33 to C44."""

from __future__ import annotations

import pytest

from tests.conformance.conftest import StartPicker
from tests.conformance.doubles import Recorder, double
from tests.conformance.picker import A_ADDRESS, B_ADDRESS, C_ADDRESS, A, B, C, Picker, server
from tests.conformance.wire import (
    DESTINATION,
    Message,
    check_route,
    request_body,
    request_headers,
    respond,
    response_headers,
    std_body,
    subset,
    with_metadata,
)

NO_CANDIDATES = "inference error: ServiceUnavailable - failed to find endpoint candidates for serving the request"
NO_PODS = "inference error: ServiceUnavailable - no pods available in datastore"


def hinted(hint: object) -> tuple[Message, Message]:
    """A completion with this subset hint."""
    return request_headers(metadata=subset(hint)), request_body(std_body("m", "p"))


def get(hint: object = None) -> Message:
    """``GET /v1/models``."""
    metadata = None if hint is None else subset(hint)
    return request_headers(end=True, method="GET", path="/v1/models", metadata=metadata)


async def get_target(picker: Picker, hint: object = None) -> str:
    """The destination of a GET; its response passes, and nothing else is sent."""
    stream = picker.stream()
    await stream.send(get(hint))
    target = check_route(await stream.answer("request_headers"))
    await respond(stream, response_headers(status=204, end=True))
    await stream.closes()
    return target


async def test_c33_best_of_all(start: StartPicker) -> None:
    picker = await start(A(3, 0.2), B(0, 0.1), C(10, 0.2))
    assert (await picker.route(*hinted([A_ADDRESS, B_ADDRESS, C_ADDRESS]))).target == B_ADDRESS


async def test_c34_only_the_busiest(start: StartPicker) -> None:
    picker = await start(A(3, 0.2), B(0, 0.1), C(10, 0.2))
    assert (await picker.route(*hinted([C_ADDRESS]))).target == C_ADDRESS


async def test_c35_subset_of_strangers(start: StartPicker) -> None:
    picker = await start(A(), B(), C())
    refusal = await picker.refuse(*hinted(["192.168.1.99:8000"]))
    assert (refusal.status, refusal.message, refusal.reason) == (503, NO_CANDIDATES, "rejected-no-endpoints")


async def test_c36_empty_subset(start: StartPicker) -> None:
    picker = await start(A(), B(), C())
    refusal = await picker.refuse(*hinted([]))
    assert (refusal.status, refusal.message, refusal.reason) == (503, NO_CANDIDATES, "rejected-no-endpoints")


async def test_c37_other_types_are_skipped(start: StartPicker) -> None:
    picker = await start(A(9, 0.9), B(), C())
    assert (await picker.route(*hinted([5, A_ADDRESS]))).target == A_ADDRESS


async def test_c38_comma_separated(start: StartPicker) -> None:
    picker = await start(A(), B(), C())
    targets = {(await picker.route(*hinted(f"{A_ADDRESS}, {C_ADDRESS}"))).target for _ in range(20)}
    assert targets == {A_ADDRESS, C_ADDRESS}


async def test_c39_ports_count(start: StartPicker) -> None:
    picker = await start(A(9, 0.9), B(), C())
    refusal = await picker.refuse(*hinted(["192.168.1.1:9999"]))
    assert (refusal.status, refusal.reason) == (503, "rejected-no-endpoints")
    assert (await picker.route(*hinted(["192.168.1.1"]))).target == A_ADDRESS


async def test_c40_subset_is_ignored_on_demand(start: StartPicker) -> None:
    picker = await start(A(3, 0.2), B(0, 0.1), C(10, 0.2), use_subset=False)
    assert (await picker.route(*hinted([C_ADDRESS]))).target == B_ADDRESS


USELESS = [
    pytest.param(5, id="number"),
    pytest.param({}, id="object"),
    pytest.param([5, None], id="no string"),
    pytest.param("", id="empty"),
]


@pytest.mark.parametrize("hint", USELESS)
async def test_useless_hints_allow_nothing(start: StartPicker, hint: object) -> None:
    picker = await start(A())
    assert (await picker.refuse(*hinted(hint))).status == 503


async def test_hint_may_come_with_any_message(start: StartPicker) -> None:
    """The last hint that is not empty counts."""
    picker = await start(A(), B(9, 0.9))
    body = request_body(std_body("m", "p"))
    early = [request_headers(metadata=subset([B_ADDRESS])), request_body(b"", end=False), body]
    assert (await picker.route(*early)).target == B_ADDRESS
    end = request_body(b"")
    with_metadata(end, subset([B_ADDRESS]))
    late = [request_headers(metadata=subset([A_ADDRESS])), request_body(std_body("m", "p"), end=False), end]
    assert (await picker.route(*late)).target == B_ADDRESS


async def test_hint_with_brackets(start: StartPicker) -> None:
    picker = await start(A(), server("six", "fd00::5", 9, 0.9))
    for hint in ("[fd00::5]:8000", "[fd00::5]", "fd00::5"):
        assert (await picker.route(*hinted([hint]))).target == "[fd00::5]:8000"


async def test_c41_get_goes_anywhere(start: StartPicker) -> None:
    picker = await start(A(9, 0.9), B(), C())
    targets = {await get_target(picker) for _ in range(30)}
    assert targets == {A_ADDRESS, B_ADDRESS, C_ADDRESS}
    assert picker.series("request_total") == {}
    assert picker.series("request_running") == {}


async def test_c42_get_without_endpoints(start: StartPicker) -> None:
    picker = await start()
    refusal = await picker.refuse(get())
    assert (refusal.status, refusal.message, refusal.reason) == (503, NO_PODS, "rejected-no-endpoints")


async def test_c43_get_honours_the_subset(start: StartPicker) -> None:
    picker = await start(A(), B(), C())
    assert {await get_target(picker, [B_ADDRESS]) for _ in range(50)} == {B_ADDRESS}


async def test_c44_get_runs_no_hooks(start: StartPicker) -> None:
    recorder = Recorder()
    picker = await start(A(), doubles=[double(recorder, *Recorder.ROLES)])
    await get_target(picker)
    assert recorder.calls == {}
    assert recorder.responses == []


async def test_get_cannot_choose(start: StartPicker) -> None:
    """A request without body passes the same headers as all others: none of ours."""
    picker = await start(A())
    stream = picker.stream()
    headers = {DESTINATION: "6.6.6.6:1", "x-prefiller-host-port": "6.6.6.6:1", "x-llm-d-inference-objective": "prio4"}
    await stream.send(request_headers(headers, end=True, method="GET", path="/v1/models"))
    answer = await stream.answer("request_headers")
    assert answer.set == ((DESTINATION, A_ADDRESS),)
    assert answer.removed == {"x-prefiller-host-port", "x-llm-d-inference-objective"}
    stream.cancel()
