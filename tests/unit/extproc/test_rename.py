"""The model name is replaced in whole members only, at any cut, and nothing complete is delayed."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.extproc.readers import Renamer
from epp.seam import Rename
from tests.unit.extproc.heads import SSE, PlainHead, cut, every_cut, head, places
from tests.unit.extproc.twins import make_both_renamers

JSON = "application/json"
OLD = "vllm-backend-01"
NEW = "gpt-4-proxy"


def renamer(content_type: str = JSON, old: str = OLD, new: str = NEW, member: str = "model") -> Renamer:
    made = make_both_renamers(head(content_type), Rename(member, old, new))
    assert made is not None
    return made


def renamed(made: Renamer, chunks: list[bytes]) -> bytes:
    """The whole output; ends with an empty last chunk, as Envoy sends it."""
    return b"".join([*(made.feed(chunk, False) for chunk in chunks), made.feed(b"", True)])


CASES = [
    pytest.param(JSON, OLD, b'{"model":"vllm-backend-01","x":1}', b'{"model":"gpt-4-proxy","x":1}', id="C75 no blank"),
    pytest.param(JSON, OLD, b'{"model": "vllm-backend-01"}', b'{"model": "gpt-4-proxy"}', id="C75 one blank"),
    pytest.param(
        JSON, OLD, b'{"model" \r\n\t:\n  "vllm-backend-01"}', b'{"model" \r\n\t:\n  "gpt-4-proxy"}', id="any white space"
    ),
    pytest.param(
        SSE,
        OLD,
        b'data: {"model":"vllm-backend-01"}\n\ndata: {"model": "vllm-backend-01"}\n\ndata: [DONE]\n\n',
        b'data: {"model":"gpt-4-proxy"}\n\ndata: {"model": "gpt-4-proxy"}\n\ndata: [DONE]\n\n',
        id="C75 events",
    ),
    pytest.param(JSON, OLD, b'{"a":{"model":"vllm-backend-01"}}', b'{"a":{"model":"gpt-4-proxy"}}', id="nested"),
    pytest.param(JSON, OLD, b'{"model":"vllm-backend-012"}', b'{"model":"vllm-backend-012"}', id="longer value"),
    pytest.param(JSON, OLD, b'{"model":"vllm-backend-0"}', b'{"model":"vllm-backend-0"}', id="shorter value"),
    pytest.param(JSON, OLD, b'{"model":["vllm-backend-01"]}', b'{"model":["vllm-backend-01"]}', id="value of another type"),
    pytest.param(JSON, OLD, b'{"id":"vllm-backend-01"}', b'{"id":"vllm-backend-01"}', id="another member"),
    pytest.param(JSON, OLD, b'{"x-model":"vllm-backend-01"}', b'{"x-model":"vllm-backend-01"}', id="longer key"),
    pytest.param(JSON, OLD, b'["model","vllm-backend-01"]', b'["model","vllm-backend-01"]', id="strings of a list"),
    pytest.param(
        JSON,
        OLD,
        rb'{"content":"{\"model\":\"vllm-backend-01\"}"}',
        rb'{"content":"{\"model\":\"vllm-backend-01\"}"}',
        id="the member as text in a string",
    ),
    pytest.param(
        JSON, OLD, rb'{"a\"model":"vllm-backend-01"}', rb'{"a\"model":"vllm-backend-01"}', id="a key that ends like it"
    ),
    pytest.param(
        JSON,
        OLD,
        rb'{"a\\":1,"model":"vllm-backend-01"}',
        rb'{"a\\":1,"model":"gpt-4-proxy"}',
        id="a backslash somewhere before",
    ),
    pytest.param(JSON, "a/b", rb'{"model":"a\/b"}', b'{"model":"gpt-4-proxy"}', id="escaped slash"),
    pytest.param(JSON, "a<b", rb'{"model":"a\u003cb"}', b'{"model":"gpt-4-proxy"}', id="escape of Go, lower case"),
    pytest.param(JSON, "a<b", rb'{"model":"\u0061\u003Cb"}', b'{"model":"gpt-4-proxy"}', id="upper case, needless escape"),
    pytest.param(JSON, "größe-😀", '{"model":"größe-😀"}'.encode(), b'{"model":"gpt-4-proxy"}', id="UTF-8"),
    pytest.param(
        JSON, "größe-😀", rb'{"model":"gr\u00f6\u00dfe-\ud83d\ude00"}', b'{"model":"gpt-4-proxy"}', id="escaped UTF-16"
    ),
    pytest.param(JSON, 'q"\\', rb'{"model":"q\"\\"}', b'{"model":"gpt-4-proxy"}', id="quote and backslash"),
    pytest.param(
        JSON, "model", b'{"model":"model","model":"x"}', b'{"model":"gpt-4-proxy","model":"x"}', id="named like the member"
    ),
    pytest.param(JSON, OLD, b'{"model":"\xff\xfe"}', b'{"model":"\xff\xfe"}', id="not UTF-8"),
    pytest.param(JSON, OLD, b'{"model":"vllm', b'{"model":"vllm', id="cut value"),
    pytest.param(JSON, OLD, b'{"model"', b'{"model"', id="cut key"),
    pytest.param(JSON, OLD, b'"', b'"', id="one quote"),
    pytest.param(JSON, OLD, b"", b"", id="nothing"),
    pytest.param(
        "application/problem+json", OLD, b'{"model":"vllm-backend-01"}', b'{"model":"gpt-4-proxy"}', id="structured suffix"
    ),
    pytest.param(
        SSE, OLD, b'data: "model"\n\ndata: :"x"\n\n', b'data: "model"\n\ndata: :"x"\n\n', id="an event that ends like a key"
    ),
    pytest.param(
        SSE, OLD, b'data: {"model"\n:"vllm-backend-01"}', b'data: {"model"\n:"vllm-backend-01"}', id="no line end in a member"
    ),
]


@pytest.mark.parametrize(("content_type", "old", "body", "expected"), CASES)
def test_member_is_replaced_at_any_cut(content_type: str, old: str, body: bytes, expected: bytes) -> None:
    for chunks in every_cut(body):
        assert renamed(renamer(content_type, old), chunks) == expected
    assert renamer(content_type, old).feed(body, True) == expected


def test_new_name_is_escaped() -> None:
    out = renamer(new='a"\\\n😀').feed(b'{"model":"vllm-backend-01"}', True)
    assert json.loads(out) == {"model": 'a"\\\n😀'}


def test_other_members_can_be_renamed() -> None:
    assert renamer(member="x", old="1", new="2").feed(b'{"x":"1","model":"1"}', True) == b'{"x":"2","model":"1"}'


@pytest.mark.parametrize(
    ("response", "old", "new"),
    [
        pytest.param(head("text/plain"), OLD, NEW, id="plain text"),
        pytest.param(head("application/grpc"), OLD, NEW, id="gRPC"),
        pytest.param(head(None), OLD, NEW, id="no content type"),
        pytest.param(head(JSON, ("content-encoding", "gzip")), OLD, NEW, id="compressed"),
        pytest.param(head(JSON), OLD, OLD, id="C75 equal names"),
        pytest.param(head(JSON), "", NEW, id="C75 no old name"),
        pytest.param(head(JSON), OLD, "", id="C75 no new name"),
    ],
)
def test_nothing_to_rename(response: PlainHead, old: str, new: str) -> None:
    assert make_both_renamers(response, Rename("model", old, new)) is None


def test_identity_is_no_encoding() -> None:
    assert make_both_renamers(head(JSON, ("content-encoding", "identity")), Rename("model", OLD, NEW)) is not None


def test_c76_name_cut_over_two_events_is_replaced_and_complete_events_pass() -> None:
    made = renamer(SSE)
    assert (
        made.feed(b'data: {"model":"vllm-backend-01"}\n\ndata: {"model":"vllm-back', False)
        == b'data: {"model":"gpt-4-proxy"}\n\ndata: {'
    )
    assert made.feed(b'end-01","x":', False) == b'"model":"gpt-4-proxy","x":'
    assert made.feed(b"1}\n\n", False) == b"1}\n\n"


def test_a_held_tail_is_not_taken_for_escaped_text() -> None:
    made = renamer()
    chunks = [b'{"a":"\\', b'n","model":', b'"vllm-backend-01"}']
    assert renamed(made, chunks) == b'{"a":"\\n","model":"gpt-4-proxy"}'


@pytest.mark.parametrize(
    ("content_type", "chunk", "held"),
    [
        pytest.param(JSON, b'{"a', b"", id="no beginning of the key"),
        pytest.param(JSON, b'{"', b'"', id="a quote"),
        pytest.param(JSON, b'{"a":"b\\"', b"", id="an escaped quote"),
        pytest.param(JSON, b'{"mod', b'"mod', id="part of the key"),
        pytest.param(JSON, b'{"model"', b'"model"', id="the key"),
        pytest.param(JSON, b'{"model" : ', b'"model" : ', id="the colon"),
        pytest.param(JSON, b'{"model":"vllm', b'"model":"vllm', id="part of the value"),
        pytest.param(JSON, b'{"model":"vllx', b"", id="part of another value"),
        pytest.param(JSON, b'{"model":1', b"", id="a number"),
        pytest.param(JSON, b'{"model":"v\\u006', b'"model":"v\\u006', id="part of an escape"),
        pytest.param(JSON, b'{"model":"v\\', b'"model":"v\\', id="a backslash"),
        pytest.param(JSON, b'{"model":"x\\', b"", id="a backslash in another value"),
        pytest.param(JSON, b'{"model"' + b" " * 1000, b"", id="unreasonable white space"),
        pytest.param(JSON, b'{"model"\n', b'"model"\n', id="line end in a document"),
        pytest.param(SSE, b'data: "model"\n', b"", id="line end in an event"),
        pytest.param(SSE, b'data: "model"\r', b"", id="CR in an event"),
        pytest.param(SSE, b'data: {"model":"vllm\n\n', b"", id="broken event"),
    ],
)
def test_only_a_tail_that_may_begin_the_member_is_held(content_type: str, chunk: bytes, held: bytes) -> None:
    made = renamer(content_type)
    assert made.feed(chunk, False) == chunk[: len(chunk) - len(held)]
    assert made.feed(b"", False) == b""
    assert made.feed(b"", True) == held


def set_model(value: object, old: str, new: str) -> object:
    """The document with the member renamed, the naive way."""
    if isinstance(value, list):
        return [set_model(item, old, new) for item in value]
    if isinstance(value, dict):
        return {key: new if key == "model" and item == old else set_model(item, old, new) for key, item in value.items()}
    return value


names = st.sampled_from(["m", "a/b", 'q"x', "back\\slash", "ümläut", "😀", "model", '"model":"m"']) | st.text(
    min_size=1, max_size=4
).filter(lambda text: text.encode("utf-8", "ignore").decode() == text)
texts = names | st.sampled_from(['"model":"m"', '\\"model":"m"', '"', "\\", '"mod'])
values = texts | st.lists(texts, max_size=2) | st.dictionaries(st.just("model") | texts, texts, max_size=2) | st.integers(0, 3)
documents = st.dictionaries(st.just("model") | texts, values, max_size=4)
styles = st.sampled_from(
    [
        {"separators": (",", ":")},
        {"separators": (",", " :\t ")},
        {"indent": 2},
        {"ensure_ascii": False},
    ]
)


@given(documents, names, names, styles, places)
def test_document_equals_the_naive_rename(
    document: dict[str, object], old: str, new: str, style: dict[str, object], where: list[int]
) -> None:
    body = json.dumps(document, **style).encode()  # type: ignore[arg-type]
    made = make_both_renamers(head(JSON), Rename("model", old, new))
    out = body if made is None else renamed(made, cut(body, where))
    expected = set_model(document, old, new)
    assert json.loads(out) == expected
    if expected == document:
        assert out == body


@given(st.lists(documents, max_size=3), names, places)
def test_events_are_never_delayed(documents: list[dict[str, object]], old: str, where: list[int]) -> None:
    bodies = [f"data: {json.dumps(document)}\n\n".encode() for document in documents]
    made = renamer(SSE, old, "\0new")
    for body in bodies:
        out = b"".join(made.feed(chunk, False) for chunk in cut(body, where))
        assert out.endswith(b"\n\n")
        assert json.loads(out[6:]) == set_model(json.loads(body[6:]), old, "\0new")
    assert made.feed(b"", True) == b""


PIECES = [
    b'"',
    b"\\",
    b"model",
    b'"model"',
    b":",
    b" ",
    b"\n",
    b'"ab"',
    b'"a',
    b"b",
    b"\\u0061",
    b"\\ud83d",
    b"\xc3",
    b"{",
    b"x",
]


NAIVE = re.compile(rb'(?<!\\)("model"[ \t\r\n]*:[ \t\r\n]*")(?:a|\\u0061)b(?=")')


@given(st.lists(st.sampled_from(PIECES), max_size=14).map(b"".join), places)
def test_any_bytes_at_any_cut(body: bytes, where: list[int]) -> None:
    assert renamed(renamer(JSON, "ab", NEW), cut(body, where)) == NAIVE.sub(rb"\1" + NEW.encode(), body)


@given(st.lists(st.sampled_from(PIECES), max_size=14).map(b"".join), places)
def test_any_event_bytes_at_any_cut(body: bytes, where: list[int]) -> None:
    assert renamed(renamer(SSE, "ab"), cut(body, where)) == renamer(SSE, "ab").feed(body, True)
