"""Usage of each API, in each kind of body, however that is cut."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.extproc import usage as usage_module
from epp.extproc.readers import Usage
from tests.unit.extproc.heads import SSE, PlainHead, cut, every_cut, head, places
from tests.unit.extproc.twins import make_reader

OPENAI = "openai-usage"
ANTHROPIC = "anthropic-usage"


def read(name: str, response: PlainHead, chunks: list[bytes]) -> Usage:
    reader = make_reader(name, response)
    for chunk in chunks:
        reader.feed(chunk)
    result = reader.result()
    assert isinstance(result, Usage)
    assert reader.result() == result, "asking changes nothing"
    return result


def dumped(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def event(document: object) -> bytes:
    return b"data: " + dumped(document) + b"\n\n"


def counted(events: int) -> Usage:
    return Usage(events=events)


def openai(prompt: int, completion: int, total: int, cached: int | None = None, events: int = 0) -> Usage:
    return Usage(prompt, completion, total, cached, events, found=True)


NOTHING = Usage()

OPENAI_USAGES = [
    pytest.param({"prompt_tokens": 7, "completion_tokens": 10, "total_tokens": 17}, openai(7, 10, 17), id="all three"),
    pytest.param({"prompt_tokens": "7", "completion_tokens": "10"}, openai(7, 10, 17), id="numeric strings, no total"),
    pytest.param(
        {"input_tokens": 7, "output_tokens": 10, "total_tokens": 18}, openai(7, 10, 18), id="names of the Responses API"
    ),
    pytest.param({"prompt_tokens": None, "input_tokens": 7}, openai(7, 0, 7), id="null counts as absent"),
    pytest.param({"prompt_tokens": 0, "input_tokens": 7}, openai(0, 0, 0), id="zero is there"),
    pytest.param({"prompt_tokens": 7, "total_tokens": 99}, openai(7, 0, 7), id="total of an incomplete block is not used"),
    pytest.param(
        {"prompt_tokens": [7], "completion_tokens": {"a": 1}, "total_tokens": True}, openai(0, 0, 0), id="other types are 0"
    ),
    pytest.param({"prompt_tokens": "many", "completion_tokens": "1e999"}, openai(0, 0, 0), id="words and infinity are 0"),
    pytest.param({"prompt_tokens": "9" * 5000}, openai(0, 0, 0), id="too many digits"),
    pytest.param({"prompt_tokens": -3, "completion_tokens": 10.0}, openai(0, 10, 10), id="negative and integral float"),
    pytest.param({}, openai(0, 0, 0), id="empty object"),
    pytest.param({"prompt_tokens": 7, "prompt_tokens_details": {"cached_tokens": 5}}, openai(7, 0, 7, 5), id="cached, chat"),
    pytest.param(
        {"input_tokens": 7, "input_tokens_details": {"cached_tokens": 0}}, openai(7, 0, 7, 0), id="nothing cached, reported"
    ),
    pytest.param(
        {"prompt_tokens_details": {"cached_tokens": 5}, "input_tokens_details": {"cached_tokens": 6}},
        openai(0, 0, 0, 6),
        id="second overrides",
    ),
    pytest.param({"prompt_tokens": 7, "prompt_tokens_details": {"cached_tokens": None}}, openai(7, 0, 7), id="cached null"),
    pytest.param({"prompt_tokens": 7, "prompt_tokens_details": [5]}, openai(7, 0, 7), id="details of another type"),
    pytest.param([], NOTHING, id="usage is a list"),
    pytest.param(None, NOTHING, id="usage is null"),
    pytest.param("7", NOTHING, id="usage is a string"),
]


@pytest.mark.parametrize(("usage", "expected"), OPENAI_USAGES)
def test_openai_document(usage: object, expected: Usage) -> None:
    body = dumped({"id": "x", "choices": [{"text": "usage"}], "usage": usage})
    assert read(OPENAI, head(), [body]) == expected


@pytest.mark.parametrize(("usage", "expected"), OPENAI_USAGES)
def test_openai_event(usage: object, expected: Usage) -> None:
    body = event({"choices": []}) + event({"choices": [], "usage": usage}) + b"data: [DONE]\n\n"
    assert read(OPENAI, head(SSE), [body]) == expected._replace(events=2)


COMPLETED = {"type": "response.completed", "response": {"usage": {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}}}

OPENAI_STREAMS = [
    pytest.param(
        [
            b"data: {}\n\n",
            event({"usage": {"prompt_tokens": 7, "completion_tokens": 10, "total_tokens": 17}}) + b"data: [DONE]\n",
            b"",
        ],
        openai(7, 10, 17, events=2),
        id="C65 usage and [DONE] in one chunk",
    ),
    pytest.param(
        [b'data: {"usage":{"prompt_to', b'kens":5,"completion_tokens":10,"total_tokens":15}}\n'],
        openai(5, 10, 15, events=1),
        id="C66 usage event cut in the middle",
    ),
    pytest.param(
        [
            event({"choices": ["x"]}),
            event({"usage": {"prompt_tokens": 5, "completion_tokens": 10, "total_tokens": 15}}),
            b"data: [DONE]\n\n",
        ],
        openai(5, 10, 15, events=2),
        id="C67 content, usage, DONE",
    ),
    pytest.param(
        [b'event: x\r\ndata:{"usage":{"prompt_tokens":5}}\r\n\r\n: ping\r\n\r\ndata:[DONE]\r\n\r\n'],
        openai(5, 0, 5, events=1),
        id="C68 no blank, CRLF, event and comment lines",
    ),
    pytest.param(
        [event({"usage": {"prompt_tokens": 7, "completion_tokens": n, "total_tokens": 7 + n}}) for n in (0, 1, 12)],
        openai(7, 12, 19, events=3),
        id="C69 usage in every chunk",
    ),
    pytest.param(
        [
            event({"type": "response.created", "response": {"usage": {"input_tokens": 1}}}),
            event({"type": "response.x", "usage": {"input_tokens": 2}}),
        ],
        counted(2),
        id="C71 other Responses events do not count",
    ),
    pytest.param(
        [event({"type": "response.output_text.delta"}), event(COMPLETED)],
        openai(3, 4, 7, events=2),
        id="C71 response.completed",
    ),
    pytest.param([event(COMPLETED | {"type": "response.incomplete"})], openai(3, 4, 7, events=1), id="response.incomplete"),
    pytest.param([event(COMPLETED | {"type": "response.failed"})], openai(3, 4, 7, events=1), id="response.failed"),
    pytest.param([event({"type": "response.failed", "response": None, "usage": {}})], counted(1), id="failed without usage"),
    pytest.param([event({"type": 5, "usage": {"prompt_tokens": 1}})], openai(1, 0, 1, events=1), id="type is a number"),
    pytest.param(
        [b'data: {"usage":\ndata: {"prompt_tokens":7}}\n\n'], openai(7, 0, 7, events=1), id="an event of two data lines"
    ),
    pytest.param([b'data: {"usage":{"prompt_tokens":7}}'], openai(7, 0, 7, events=1), id="the last line has no end"),
    pytest.param([b"data: usage\n\ndata: [usage\n\ndata: 5\n\n"], counted(3), id="events that are not JSON objects"),
    pytest.param([b"data: " + b'{"usage":' * 3000 + b"\n\n"], counted(1), id="deep nesting"),
    pytest.param(
        [
            event({"usage": {"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 9}}),
            event({"usage": {"completion_tokens": 5}}),
        ],
        openai(7, 5, 12, events=2),
        id="a later block without prompt keeps the prompt",
    ),
    pytest.param(
        [
            event({"usage": {"prompt_tokens": 7, "prompt_tokens_details": {"cached_tokens": 3}}}),
            event({"usage": {"completion_tokens": 5}}),
        ],
        openai(7, 5, 12, 3, events=2),
        id="a later block without cached keeps it",
    ),
]


@pytest.mark.parametrize(("chunks", "expected"), OPENAI_STREAMS)
def test_openai_stream(chunks: list[bytes], expected: Usage) -> None:
    assert read(OPENAI, head(SSE), chunks) == expected


@pytest.mark.parametrize(("chunks", "expected"), [case for case in OPENAI_STREAMS if case.id != "deep nesting"])
def test_openai_stream_in_any_two_pieces(chunks: list[bytes], expected: Usage) -> None:
    for pieces in every_cut(b"".join(chunks)):
        assert read(OPENAI, head(SSE), pieces) == expected


def test_the_usage_so_far_grows_with_the_stream() -> None:
    reader = make_reader(OPENAI, head(SSE))
    results = []
    for number in (1, 2, 3):
        reader.feed(event({"usage": {"prompt_tokens": 5, "completion_tokens": number}}))
        results.append(reader.result())
    assert results == [openai(5, 1, 6, events=1), openai(5, 2, 7, events=2), openai(5, 3, 8, events=3)]


START = {
    "type": "message_start",
    "message": {"usage": {"input_tokens": 1000, "cache_read_input_tokens": 800, "output_tokens": 1}},
}
DELTA = {"type": "content_block_delta", "delta": {"text": "usage"}, "usage": {"output_tokens": 77}}


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        pytest.param(
            [START, DELTA, {"type": "message_delta", "usage": {"output_tokens": 200}}, {"type": "message_stop"}],
            openai(1000, 200, 1200, 800, events=4),
            id="C70 a whole stream",
        ),
        pytest.param([START], openai(1000, 0, 1000, 800, events=1), id="cut before the output count"),
        pytest.param(
            [START, *({"type": "message_delta", "usage": {"output_tokens": n}} for n in (10, 30))],
            openai(1000, 30, 1030, 800, 3),
            id="last wins",
        ),
        pytest.param(
            [
                START,
                {"type": "message_delta", "usage": {"output_tokens": 2, "input_tokens": 0, "cache_read_input_tokens": None}},
            ],
            openai(1000, 2, 1002, 800, events=2),
            id="zero and null do not replace",
        ),
        pytest.param(
            [
                START,
                {"type": "message_delta", "usage": {"output_tokens": 2, "input_tokens": 900, "cache_read_input_tokens": 0}},
            ],
            openai(900, 2, 902, 0, events=2),
            id="repeated counts replace",
        ),
        pytest.param(
            [{"type": "message_start", "message": "usage"}, {"type": "message_delta", "usage": 5}], counted(2), id="odd types"
        ),
        pytest.param([{"usage": {"input_tokens": 5}}], counted(1), id="no type"),
    ],
)
def test_anthropic_stream(documents: list[dict[str, object]], expected: Usage) -> None:
    body = b"".join(f"event: {d.get('type', 'x')}\n".encode() + event(d) for d in documents)
    for pieces in every_cut(body):
        assert read(ANTHROPIC, head(SSE), pieces) == expected


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        pytest.param({"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 4}, openai(10, 5, 15, 4), id="all"),
        pytest.param({"input_tokens": 10, "output_tokens": 5, "total_tokens": 99}, openai(10, 5, 15), id="total is the sum"),
        pytest.param({"prompt_tokens": 10}, openai(0, 0, 0), id="names of another API"),
        pytest.param(None, NOTHING, id="null"),
    ],
)
def test_anthropic_document(usage: object, expected: Usage) -> None:
    assert read(ANTHROPIC, head(), [dumped({"type": "message", "usage": usage})]) == expected


DOCUMENT = dumped({"usage": {"prompt_tokens": 7}})
EVENT = event({"usage": {"prompt_tokens": 7}})


@pytest.mark.parametrize(
    ("response", "body", "expected"),
    [
        pytest.param(head("application/json; charset=utf-8"), DOCUMENT, openai(7, 0, 7), id="C73 JSON, whatever was asked for"),
        pytest.param(
            head("text/event-stream; charset=utf-8"), EVENT, openai(7, 0, 7, events=1), id="C74 events, whatever was asked for"
        ),
        pytest.param(head("Text/Event-Stream"), EVENT, openai(7, 0, 7, events=1), id="type in capitals"),
        pytest.param(head(None), b" \n" + DOCUMENT, openai(7, 0, 7), id="no type, JSON"),
        pytest.param(head(None), b"\n" + EVENT, openai(7, 0, 7, events=1), id="no type, events"),
        pytest.param(head("text/plain"), EVENT, openai(7, 0, 7, events=1), id="wrong type, events"),
        pytest.param(head("application/problem+json"), DOCUMENT, openai(7, 0, 7), id="structured suffix"),
        pytest.param(
            head("application/json", ("content-encoding", "identity")), DOCUMENT, openai(7, 0, 7), id="identity is no encoding"
        ),
        pytest.param(head("application/json", ("content-encoding", "gzip")), DOCUMENT, NOTHING, id="compressed"),
        pytest.param(head(SSE, ("content-encoding", "br")), EVENT, NOTHING, id="compressed events"),
        pytest.param(head("application/grpc"), EVENT, NOTHING, id="gRPC"),
        pytest.param(head("application/json"), b"no healthy upstream", NOTHING, id="C63 not JSON"),
        pytest.param(head("application/json"), b"[1]", NOTHING, id="not an object"),
        pytest.param(head("application/json"), b'{"usage":{"prompt_tokens":7}', NOTHING, id="cut"),
        pytest.param(head("application/json"), b"", NOTHING, id="empty"),
    ],
)
def test_kind_of_body(response: PlainHead, body: bytes, expected: Usage) -> None:
    for chunks in every_cut(body):
        assert read(OPENAI, response, [*chunks, b""]) == expected


@pytest.mark.parametrize("name", sorted({OPENAI, ANTHROPIC}))
@given(content_type=st.sampled_from(["application/json", SSE, None]), chunks=st.lists(st.binary(max_size=30), max_size=6))
def test_arbitrary_bytes_never_raise(name: str, content_type: str | None, chunks: list[bytes]) -> None:
    read(name, head(content_type), chunks)


MEANING = {"0": 0, "1": 1, "7": 7, "300": 300, '"12"': 12, '"x"': 0, "true": 0, "[]": 0, "2.0": 2}
"""What a JSON text means as a count; null means nothing."""
counts = st.sampled_from(["null", *MEANING]).map(json.loads)
details = st.sampled_from([None, {}, {"cached_tokens": None}, {"cached_tokens": 0}, {"cached_tokens": 6}, "usage"])
usages: st.SearchStrategy[object] = st.sampled_from([None, [], "usage"]) | st.fixed_dictionaries(
    {},
    optional={
        "prompt_tokens": counts,
        "completion_tokens": counts,
        "input_tokens": counts,
        "output_tokens": counts,
        "total_tokens": counts,
        "cache_read_input_tokens": counts,
        "prompt_tokens_details": details,
        "input_tokens_details": details,
    },
)
documents = st.fixed_dictionaries(
    {},
    optional={
        "usage": usages,
        "type": st.sampled_from(["message_start", "message_delta", "response.completed", "response.created", "x", 5]),
        "message": st.fixed_dictionaries({"usage": usages}) | st.just("usage"),
        "response": st.fixed_dictionaries({"usage": usages}) | st.none(),
        "text": st.sampled_from(["usage", '"usage":null', "[DONE]"]),
    },
)


@pytest.mark.parametrize("name", sorted({OPENAI, ANTHROPIC}))
@given(bodies=st.lists(documents, max_size=5), where=places)
def test_any_cut_gives_the_same_usage_as_event_by_event(name: str, bodies: list[dict[str, object]], where: list[int]) -> None:
    body = b"".join(map(event, bodies))
    whole = make_reader(name, head(SSE))
    for document in bodies:
        whole.feed(event(document))
    assert read(name, head(SSE), cut(body, where)) == whole.result()


def naive_openai(bodies: list[dict[str, object]]) -> Usage:
    """The rules once more, on the documents themselves."""
    prompt = completion = total = 0
    cached: int | None = None
    found = False
    for document in bodies:
        kind = document.get("type")
        usage = document.get("usage")
        if str(kind).startswith("response."):
            response = document.get("response") if kind == "response.completed" else None
            usage = response["usage"] if isinstance(response, dict) else None
        if not isinstance(usage, dict):
            continue
        found = True
        known = {k: MEANING[json.dumps(v)] for k, v in usage.items() if json.dumps(v) in MEANING}
        p = known.get("prompt_tokens", known.get("input_tokens", 0))
        c = known.get("completion_tokens", known.get("output_tokens", 0))
        t = known.get("total_tokens", 0)
        prompt, completion = p or prompt, c or completion
        total = t if p and c and t else prompt + completion
        for name in ("prompt_tokens_details", "input_tokens_details"):
            value = usage.get(name)
            if isinstance(value, dict) and value.get("cached_tokens") is not None:
                cached = value["cached_tokens"]
    return Usage(prompt, completion, total, cached, len(bodies), found)


@given(bodies=st.lists(documents, max_size=5), where=places)
def test_openai_stream_equals_the_naive_reading(bodies: list[dict[str, object]], where: list[int]) -> None:
    assert read(OPENAI, head(SSE), cut(b"".join(map(event, bodies)), where)) == naive_openai(bodies)


@given(document=documents, where=places, padding=st.integers(0, 200), first=st.booleans())
def test_long_documents_are_read_from_their_end(
    document: dict[str, object], where: list[int], padding: int, first: bool
) -> None:
    """As much of a long document as fits gives the same as the whole of a short one."""
    filler = {"filler": "u" * padding}
    body = dumped(filler | document if first else document | filler)
    expected = read(OPENAI, head(), [body])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(usage_module, "TAIL_BYTES", 64)
        assert read(OPENAI, head(), cut(body, where)) == expected


def test_of_a_very_long_document_only_the_tail_is_kept() -> None:
    reader = usage_module.openai_usage(head())
    assert isinstance(reader, usage_module.UsageReader)
    reader.feed(b'{"data":[{"usage":{"prompt_tokens":1}},"')
    for _ in range(40):
        reader.feed(b"x" * 62_000)
        assert isinstance(reader._inner, usage_module._Document)
        assert reader._inner._held <= usage_module.MAX_JSON_BYTES
    reader.feed(b'"],"usage":{"prompt_tokens":7},"model":"m"}\n')
    assert reader.result() == openai(7, 0, 7)


def test_a_very_long_document_with_usage_in_front_gives_nothing() -> None:
    body = b'{"usage":{"prompt_tokens":1},"data":"' + b"x" * 1_100_000 + b'"}'
    borders = range(0, len(body) + 62_000, 62_000)
    assert read(OPENAI, head(), [body[a:b] for a, b in pairwise(borders)]) == NOTHING
