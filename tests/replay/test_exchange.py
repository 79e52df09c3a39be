"""One request between a picker that the test plays and a simulated server: the calls of the seam, whatever is answered when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from epp.replay.exchange import Exchange
from epp.replay.outcome import Outcome
from epp.replay.servers import ReplayServer
from epp.replay.virtual_time import VirtualTimeLoop
from epp.request.headers import DESTINATION, PREFILLER
from epp.seam import Chunk, Edits, End, Metadata, Observe, Plan, Reply, Request, ResponseHead, Route, Stream
from epp.seam import Outcome as StreamOutcome
from tests.replay.building import options, tokens_record, trace

FULL = Reply(429, b'{"error":{"message":"too many"}}')
EVERYTHING = Plan(ask_headers=True, observe=Observe.EVERY, hold_end=True, readers=("openai-usage", "openai-response"))


class Picker:
    """Answers by what the test says, and writes down what it is told."""

    def __init__(self, answers: Callable[[Stream, ReplayServer], None], server: ReplayServer) -> None:
        self._answers = answers
        self._server = server
        self.calls: list[str] = []
        self.ends: list[StreamOutcome] = []
        self.is_answering = False

    def request(self, stream: Stream, request: Request) -> None:
        self.calls.append(f"request {request.body_state} {request.headers.get(':path')}")
        self.is_answering = True
        self._answers(stream, self._server)
        self.is_answering = False

    def response_headers(self, stream: Stream, head: ResponseHead) -> Edits | None:
        assert not self.is_answering
        self.calls.append(f"headers {head.status}")
        return None

    def response_body(self, stream: Stream, chunks: Sequence[Chunk]) -> None:
        self.calls.append("chunk")

    def finished(self, stream: Stream, outcome: StreamOutcome) -> Metadata | None:
        assert not self.is_answering, "never inside answer"
        self.calls.append(f"finished {outcome.end}")
        self.ends.append(outcome)
        return None


def to(server: ReplayServer, plan: Plan = EVERYTHING, *more: tuple[str, str]) -> Route:
    return Route(Edits(((DESTINATION, server.endpoint.host_port), *more)), {}, plan)


def exchange(answers: Callable[[Stream, ReplayServer], None], output: int = 3) -> tuple[Outcome, Picker]:
    """Let one request come and pass."""

    async def work() -> tuple[Outcome, Picker]:
        server = ReplayServer(0, options())
        picker = Picker(answers, server)
        (recorded,) = trace([tokens_record(0, [1], output=output)]).requests
        over = asyncio.Event()
        outcome = Outcome(1, 0.0)
        decided: list[Outcome] = []
        servers = {server.endpoint.address: (0, server)}
        Exchange(recorded, outcome, picker, servers, decided.append, lambda _: over.set()).begin("m", ())
        await over.wait()
        await asyncio.sleep(60)
        assert decided == [outcome]
        assert (server.engine.running, server.engine.waiting) == (0, 0), "nothing is left at the server"
        return outcome, picker

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(work())


def test_all_that_a_plan_asks_for_is_told_in_its_order() -> None:
    outcome, picker = exchange(lambda stream, server: stream.answer(to(server)))
    assert picker.calls == ["request complete /v1/completions", "headers 200", *["chunk"] * 3, "finished natural"]
    (end,) = picker.ends
    assert (end.complete, end.streaming, end.chunks) == (True, True, 3)
    usage, document = end.read
    assert (usage.prompt_tokens, usage.completion_tokens, usage.found, document) == (512, 3, True, None)  # type: ignore[attr-defined]
    assert end.first_s is not None
    assert end.first_s < end.end_s
    assert outcome.is_served


def test_what_no_plan_asks_for_is_not_told() -> None:
    _, picker = exchange(lambda stream, server: stream.answer(to(server, Plan())))
    assert picker.calls == ["request complete /v1/completions", "finished natural"]


def test_only_the_first_chunk_is_told_where_that_is_enough() -> None:
    _, picker = exchange(lambda stream, server: stream.answer(to(server, Plan(observe=Observe.FIRST))), output=9)
    assert picker.calls[1:] == ["chunk", "finished natural"]


def test_a_refusal_ends_it() -> None:
    outcome, picker = exchange(lambda stream, server: stream.answer(FULL))
    assert picker.calls == ["request complete /v1/completions", "finished replied"]
    assert (outcome.status, outcome.problem, outcome.server) == (429, "too many", None)


@pytest.mark.parametrize("body", [b"plain", b'"text"', b'{"error": "x"}', b'{"error": {"message": 3}}'])
def test_a_refusal_in_another_form_is_shown_as_it_is(body: bytes) -> None:
    outcome, _ = exchange(lambda stream, server: stream.answer(Reply(503, body)))
    assert outcome.problem == body.decode()


def test_a_decision_may_come_later() -> None:
    def later(stream: Stream, server: ReplayServer) -> None:
        asyncio.get_running_loop().call_later(2.5, stream.answer, to(server))

    outcome, _ = exchange(later)
    assert outcome.held_s == pytest.approx(2.5)
    assert outcome.ttft_s == pytest.approx(2.5 + 512 * 60e-6 + 0.040)


def test_an_evicted_request_leaves_its_server() -> None:
    def evicts(stream: Stream, server: ReplayServer) -> None:
        stream.answer(to(server))
        asyncio.get_running_loop().call_later(0.1, stream.answer, FULL)

    outcome, picker = exchange(evicts, output=1000)
    assert picker.calls[-1] == "finished replied"
    assert (outcome.status, outcome.server, outcome.output_tokens) == (429, 0, 0)
    assert picker.ends[0].end_s == pytest.approx(1000.1)


@pytest.mark.parametrize("after_s", [0.0, 30.0], ids=["at once", "after its end"])
def test_what_comes_too_late_is_dropped(after_s: float) -> None:
    def twice(stream: Stream, server: ReplayServer) -> None:
        stream.answer(to(server))
        asyncio.get_running_loop().call_later(after_s, stream.answer, FULL if after_s else to(server))

    outcome, picker = exchange(twice)
    assert outcome.is_served
    assert [call for call in picker.calls if call.startswith("finished")] == ["finished natural"]


@pytest.mark.parametrize("destination", ["10.9.9.9:8000", ""])
def test_a_destination_that_is_not_there(destination: str) -> None:
    outcome, picker = exchange(
        lambda stream, server: stream.answer(Route(Edits(((DESTINATION, destination),)), {}, EVERYTHING))
    )
    assert picker.calls[1:] == ["headers 503", "finished natural"]
    assert (outcome.status, outcome.problem) == (503, f"there is no server {destination!r}")
    assert picker.ends[0].end is End.NATURAL


def test_the_first_of_several_destinations_is_taken() -> None:
    def several(stream: Stream, server: ReplayServer) -> None:
        stream.answer(Route(Edits(((DESTINATION, f"{server.endpoint.host_port},10.9.9.9:8000"),)), {}))

    assert exchange(several)[0].server == 0


@pytest.mark.parametrize(("more", "is_split"), [((), False), (((PREFILLER, "10.0.0.2:8000"),), True)])
def test_a_second_server_that_is_left_out_is_noted(more: Any, is_split: bool) -> None:
    outcome, _ = exchange(lambda stream, server: stream.answer(to(server, EVERYTHING, *more)))
    assert (outcome.is_served, outcome.is_split) == (True, is_split)
