"""From the response headers to the closed books: hooks, causes, served endpoints, counts, each exactly once."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from epp.errors import ErrorCode, RequestError
from epp.framework.results import SchedulingResult
from epp.framework.testing import FakeHeaders
from epp.framework.types import Cause, Completion, Endpoint, ResponseInfo, StreamingChunk, Usage
from epp.seam import Edits, End, Outcome
from tests.unit.decision.rig import FakeHead, FakeStream, Plugin, Rig, chunk, hooks, outcome, request

LABELS = {"model_name": "m", "target_model_name": "m", "fairness_id": "default-flow", "priority": "0"}
USAGE = Usage(7, 10, 17, cached_tokens=3, found=True)
BUG = ZeroDivisionError("secret")


class Books:
    """A rig whose one plugin keeps what it was told."""

    def __init__(self, **does: object) -> None:
        self.journal: list[str] = []
        self.responses: list[ResponseInfo] = []
        self.chunks: list[StreamingChunk] = []
        self.completions: list[Completion] = []
        keeps = {
            "response_received": lambda request, result, response, edits: self.responses.append(response),
            "response_streaming": lambda request, result, chunk: self.chunks.append(chunk),
            "response_complete": lambda request, result, completion: self.completions.append(completion),
        }
        self.rig = Rig(hooks(Plugin("p", self.journal, **{**keeps, **does})))

    def finish(self, ended: Outcome, stream: FakeStream | None = None) -> Any:
        """End a stream; by default one that was just routed."""
        return self.rig.director.finished(stream or self.rig.send(), ended)

    @property
    def completion(self) -> Completion:
        (completion,) = self.completions
        return completion

    def count(self, family: str, /, **more: str) -> float | None:
        return self.rig.count(family, **LABELS, **more)


# ── headers ──


def test_received_hooks_see_the_headers_and_may_change_them() -> None:
    seen: list[ResponseInfo] = []

    def received(request: object, result: object, response: ResponseInfo, edits: Any) -> None:
        seen.append(response)
        edits.set("x-session-token", "abc")
        edits.remove("server")
        edits.set("x-gateway-destination-endpoint", "6.6.6.6:1")

    books = Books(response_received=received)
    head = FakeHead(201, FakeHeaders({"server": "vllm"}), {"envoy.lb": {"x": 1}}, 1001.25)
    edits = books.rig.director.response_headers(books.rig.send(), head)
    assert edits == Edits((("x-session-token", "abc"),), frozenset({"server"}))
    (response,) = seen
    assert (response.status, response.headers, response.metadata, response.at_s) == (201, head.headers, head.metadata, 1001.25)
    assert response.served.name == "c"


def test_a_received_hook_that_fails_costs_nothing_else() -> None:
    books = Books(response_received=BUG)
    assert books.rig.director.response_headers(books.rig.send(), FakeHead()) == Edits(), (
        "C89: a hook that raises does not hold the headers up"
    )
    assert [text for _, _, text in books.rig.reports.seen] == ["secret"]


def served(name: object) -> dict[str, dict[str, object]]:
    return {"envoy.lb": {"x-gateway-destination-endpoint-served": name}}


@pytest.mark.parametrize(
    ("metadata", "name"),
    [
        pytest.param(served("192.168.1.1:8000"), "a", id="C87 a known endpoint"),
        pytest.param(served("192.168.1.99:8000"), "c", id="unknown"),
        pytest.param(served(""), "c", id="empty"),
        pytest.param(served("x"), "c", id="junk"),
        pytest.param(served(["192.168.1.1:8000"]), "c", id="a list"),
        pytest.param({"envoy.lb": {}}, "c", id="not named"),
        pytest.param({"other": {"x-gateway-destination-endpoint-served": "192.168.1.1:8000"}}, "c", id="another namespace"),
        pytest.param({}, "c", id="no metadata"),
    ],
)
def test_the_endpoint_that_served(metadata: dict[str, dict[str, object]], name: str) -> None:
    books = Books()
    stream = books.rig.send()
    head = FakeHead(metadata=metadata)
    books.rig.director.response_headers(stream, head)
    books.finish(outcome(head=head), stream)
    assert [response.served.name for response in books.responses] == [name]
    assert books.completion.served.name == name


class BehindProxy:
    """Sends everything to a and b, in this order, through port 9000 of their pods."""

    def pick(self, request: object, profiles: object, results: dict[str, object]) -> list[str]:
        return [] if results else ["default"]

    def process_results(self, request: object, results: dict[str, Any]) -> SchedulingResult:
        picked = results["default"].candidates
        return SchedulingResult("default", results, tuple(endpoint.at_port(9000) for endpoint in list(picked)[:2]))


@pytest.mark.parametrize(
    ("reported", "name"),
    [
        pytest.param("192.168.1.1:9000", "a", id="the target, not the rank at that port"),
        pytest.param("192.168.1.2:9000", "b", id="the fallback"),
        pytest.param("192.168.1.3:8000", "c", id="another endpoint"),
        pytest.param("192.168.1.3:9000", "a", id="nobody"),
    ],
)
def test_ports_that_a_profile_handler_replaced_are_known(reported: str, name: str) -> None:
    completions: list[Completion] = []
    keep = Plugin("p", [], response_complete=lambda request, result, completion: completions.append(completion))
    rig = Rig(hooks(keep), handler=BehindProxy())
    rig.store.upsert(Endpoint.of("another-rank-of-a", "192.168.1.1", 9000))
    stream = rig.send()
    assert dict(stream.route.headers.set)["x-gateway-destination-endpoint"] == "192.168.1.1:9000,192.168.1.2:9000"
    rig.director.finished(stream, outcome(head=FakeHead(metadata=served(reported))))
    assert completions[0].served.name == name


def test_the_endpoint_that_served_is_known_without_a_headers_hook() -> None:
    books = Books()
    books.finish(outcome(head=FakeHead(metadata=served("192.168.1.1:8000"))))
    assert books.completion.served.name == "a"


def test_the_endpoint_that_served_stays_though_it_left_meanwhile() -> None:
    books = Books()
    stream = books.rig.send()
    head = FakeHead(metadata=served("192.168.1.1:8000"))
    books.rig.director.response_headers(stream, head)
    books.rig.store.replace_all([])
    books.finish(outcome(head=head), stream)
    assert books.completion.served.name == "a"


# ── chunks ──


def test_streaming_hooks_see_every_chunk() -> None:
    books = Books()
    stream = books.rig.send()
    books.rig.director.response_body(stream, [chunk(b"1"), chunk(b"2", read=(USAGE,))])
    books.rig.director.response_body(stream, [chunk(b"3", end=True, read=(None,))])
    assert [(c.data, c.end, c.usage) for c in books.chunks] == [
        (b"1", False, Usage()),
        (b"2", False, USAGE),
        (b"3", True, Usage()),
    ]


# ── the end ──


@pytest.mark.parametrize(
    ("end", "cause"),
    [
        (End.NATURAL, Cause.NATURAL),
        (End.DISCONNECTED, Cause.CLIENT_DISCONNECT),
        (End.REPLIED, Cause.ERROR),
        (End.FAILED, Cause.ERROR),
    ],
)
def test_causes(end: End, cause: Cause) -> None:
    books = Books()
    books.finish(outcome(end))
    assert books.completion.cause is cause


def test_all_facts_of_a_completion() -> None:
    books = Books()
    books.finish(outcome(head=FakeHead(201), streaming=True, size_bytes=5000, read=(USAGE,)))
    assert books.completion == Completion(
        cause=Cause.NATURAL,
        status=201,
        served=books.rig.store.candidates()[2],
        usage=USAGE,
        length_known=True,
        ttft_s=1.5,
        duration_s=2.0,
        response_bytes=5000,
        streaming=True,
    )


def test_a_response_that_never_came() -> None:
    books = Books()
    books.finish(outcome(End.DISCONNECTED, head=None, first_s=None, size_bytes=0))
    completion = books.completion
    assert (completion.status, completion.ttft_s, completion.length_known, completion.usage) == (0, None, False, Usage())
    assert completion.served.name == "c"


def test_a_bypassed_response_has_no_known_length() -> None:
    books = Books()
    books.finish(outcome(complete=False, first_s=None))
    assert (books.completion.cause, books.completion.length_known) == (Cause.NATURAL, False), (
        "C104: bypassed, so the end was not seen"
    )
    assert books.count("request_duration_seconds_count") == 1


@pytest.mark.parametrize("entries", [(), (("envoy.lb", "cost", 10),)], ids=["none", "one"])
def test_metadata_of_completions_is_sent(entries: tuple[tuple[str, str, object], ...]) -> None:
    def complete(request: object, result: object, completion: Completion) -> None:
        for namespace, key, content in entries:
            completion.metadata.setdefault(namespace, {})[key] = content

    sent = Books(response_complete=complete).finish(outcome())
    assert sent == ({"envoy.lb": {"cost": 10}} if entries else None), "C84, C85: metadata of a completion"


def test_a_completion_hook_that_fails_costs_nothing_else() -> None:
    books = Books(response_complete=BUG)
    books.finish(outcome())
    assert [text for _, _, text in books.rig.reports.seen] == ["secret"]
    assert books.count("request_running") == 0
    assert books.count("request_duration_seconds_count") == 1


# ── exactly once ──

EVENTS = ["headers", "chunk", "finish", "finish"]


@pytest.mark.parametrize("events", sorted(set(product(EVENTS, repeat=3))), ids="-".join)
def test_a_completion_comes_once_whatever_the_order(events: tuple[str, ...]) -> None:
    books = Books()
    stream = books.rig.send()
    for event in events:
        if event == "headers":
            books.rig.director.response_headers(stream, FakeHead())
        elif event == "chunk":
            books.rig.director.response_body(stream, [chunk(b"x")])
        else:
            books.finish(outcome(), stream)
    ended = events.index("finish") if "finish" in events else len(events)
    assert len(books.completions) == ("finish" in events)
    assert len(books.responses) + len(books.chunks) == ended, "nothing is told behind the end"
    assert books.count("request_running") == (0 if "finish" in events else 1)


def test_two_streams_with_one_request_id_are_independent() -> None:
    books = Books()
    first, second = books.rig.send(), books.rig.send()
    assert books.count("request_running") == 2
    books.finish(outcome(), first)
    assert books.count("request_running") == 1
    books.finish(outcome(End.DISCONNECTED), second)
    assert books.count("request_running") == 0
    assert [c.cause for c in books.completions] == [Cause.NATURAL, Cause.CLIENT_DISCONNECT], (
        "C99: one request id, two completions"
    )


@pytest.mark.parametrize("error", [RequestError(ErrorCode.FORBIDDEN, "no"), BUG], ids=["refusal", "defect"])
def test_a_request_that_pre_request_refused_is_completed(error: Exception) -> None:
    books = Books(pre_request=error)
    stream = books.rig.send()
    assert stream.reply.status in (403, 500)
    assert books.count("request_running") == 1, "what hooks counted up before the failure must come down"
    books.finish(outcome(End.REPLIED, head=None, first_s=None), stream)
    assert books.completion.cause is Cause.ERROR
    assert books.count("request_running") == 0
    assert sum(v for v in error_counts(books).values()) == 1


def error_counts(books: Books) -> dict[str, float]:
    counted = {code: books.count("request_error_total", error_code=code.value) for code in ErrorCode}
    return {code.value: total for code, total in counted.items() if total}


def test_a_request_that_was_refused_before_has_no_completion() -> None:
    books = Books(process_request=RequestError(ErrorCode.FORBIDDEN, "no"))
    books.finish(outcome(End.REPLIED, head=None))
    assert books.completions == []
    assert books.count("request_running") is None


# ── counts ──


@pytest.mark.parametrize(
    ("status", "errors"),
    [(200, {}), (201, {}), (304, {}), (0, {}), (400, {"ModelServerError": 1}), (500, {"ModelServerError": 1})],
)
def test_errors_of_model_servers(status: int, errors: dict[str, float]) -> None:
    books = Books()
    books.finish(outcome(head=FakeHead(status)))
    assert error_counts(books) == errors, "C78, D19: from 400 on"
    assert books.completion.cause is Cause.NATURAL
    assert books.count("request_duration_seconds_count") == 1


def test_what_is_observed_of_a_stream() -> None:
    books = Books()
    books.finish(outcome(streaming=True, size_bytes=5000, read=(USAGE,), busy_s=0.25, gaps=(), gaps_s=0.0))
    sums = {
        "request_duration_seconds": 2.0,
        "request_size_bytes": len(request().body),
        "response_size_bytes": 5000,
        "request_input_tokens": 7,
        "request_output_tokens": 10,
        "request_cached_tokens": 3,
    }
    for family, total in sums.items():
        assert (books.count(f"{family}_count"), books.count(f"{family}_sum")) == (1, total), family
    assert books.count("request_ttft_seconds_sum", streaming="true") == 1.5
    assert books.rig.count("response_processing_duration_seconds_sum") == 0.25


@pytest.mark.parametrize("end", [End.DISCONNECTED, End.FAILED, End.REPLIED])
def test_a_cut_response_has_no_duration(end: End) -> None:
    books = Books()
    books.finish(outcome(end))
    assert books.count("request_duration_seconds_count") in (None, 0)
    assert error_counts(books) == {}, "leaving clients are no errors"


def test_a_response_that_never_came_has_no_size() -> None:
    books = Books()
    books.finish(outcome(End.DISCONNECTED, head=None, first_s=None, size_bytes=0))
    assert books.count("response_size_bytes_count") in (None, 0)
    assert books.count("request_size_bytes_count") == 1


@pytest.mark.parametrize("read", [(), (None,), ("text",), ({"usage": {}},)], ids=repr)
def test_readers_that_found_nothing(read: tuple[object, ...]) -> None:
    books = Books()
    books.finish(outcome(read=read))
    assert books.completion.usage == Usage()
    assert books.count("request_input_tokens_count") in (None, 0)
