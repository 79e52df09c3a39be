"""What both machines make of the headers that tell the kind of a body."""

from __future__ import annotations

import pytest

from epp.extproc.messages import RequestBody, RequestHeaders, ResponseBody, ResponseHeaders, StreamedBody
from epp.extproc.readers import BodyCopy, Usage
from epp.seam import Outcome, Plan, Rename
from tests.extproc.transcripts import Bare, Case, PlainHeaders, Script, routed

PLAN = Plan(readers=("copy", "openai-usage"), rename=Rename("model", "served", "asked"))
DOCUMENT = b'{"model":"served","usage":{"prompt_tokens":3,"completion_tokens":4}}'
RENAMED = DOCUMENT.replace(b"served", b"asked")
EVENT = b"data: " + DOCUMENT + b"\n\n"


def _response(make: type[Bare], body: bytes, *headers: tuple[str, str]) -> tuple[bytes, Outcome]:
    """What goes on to the client, and what is known at the end."""
    bare = make(Case("", (), script=Script(routed(PLAN))))
    bare.does(RequestHeaders(PlainHeaders((":path", "/"))))
    bare.does(RequestBody(b"{}", True))
    bare.does(ResponseHeaders(PlainHeaders((":status", "200"), *headers)))
    sent = [answer for answer in bare.does(ResponseBody(body, True)) if isinstance(answer, StreamedBody)]
    [outcome] = bare.handler.outcomes
    return b"".join(bytes(answer.data) for answer in sent), outcome


@pytest.mark.parametrize(
    ("content_type", "streaming"),
    [
        pytest.param("text/event-stream", True, id="events"),
        pytest.param("Text/Event-Stream; charset=utf-8", True, id="events in capitals, with a parameter"),
        pytest.param("  text/event-stream ;x=y", True, id="blanks around"),
        pytest.param("application/json", False, id="JSON"),
        pytest.param("application/problem+json;x=text/plain", False, id="a structured suffix"),
        pytest.param("APPLICATION/X-NDJSON", False, id="line by line, in capitals"),
        pytest.param("", False, id="empty"),
    ],
)
def test_content_types(make: type[Bare], content_type: str, streaming: bool) -> None:
    body = EVENT if streaming else DOCUMENT
    sent, outcome = _response(make, body, ("content-type", content_type))
    known = content_type != ""
    assert outcome.streaming is streaming
    assert sent == (body.replace(b"served", b"asked") if known else body)
    assert outcome.read == (BodyCopy(body, truncated=False), Usage(3, 4, 7, events=int(streaming), found=True))


@pytest.mark.parametrize("encoding", ["", "identity", " Identity "])
def test_a_plain_body_is_read_and_changed(make: type[Bare], encoding: str) -> None:
    sent, outcome = _response(make, DOCUMENT, ("content-type", "application/json"), ("content-encoding", encoding))
    assert sent == RENAMED
    assert outcome.read == (BodyCopy(DOCUMENT, truncated=False), Usage(3, 4, 7, found=True))


@pytest.mark.parametrize("encoding", ["gzip", "BR", "identity, gzip", "zstd"])
def test_a_compressed_body_is_left_alone(make: type[Bare], encoding: str) -> None:
    sent, outcome = _response(make, DOCUMENT, ("content-type", "application/json"), ("content-encoding", encoding))
    assert sent == DOCUMENT
    assert outcome.read == (BodyCopy(b"", truncated=False), Usage())
