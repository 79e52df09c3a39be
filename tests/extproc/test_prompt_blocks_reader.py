"""The request reader of prompts: what the plugins are given of a body, by every transport's machine."""

from __future__ import annotations

import pytest

from epp.extproc.messages import RequestBody, RequestHeaders
from epp.extproc.readers import REQUEST_READERS
from epp.framework.prompt_blocks import body_blocks
from tests.extproc.transcripts import FULL_DUPLEX, SETTINGS, Bare, Case, PlainHeaders

BODY = b'{"model":"m","messages":[{"role":"user","content":"what is a block?"}]}'


def read(make: type[Bare], name: str, *pieces: bytes, headers: tuple[tuple[str, str], ...] = ()) -> object:
    bare = make(Case("", (), opening=FULL_DUPLEX, settings=SETTINGS._replace(request_readers=(name,))))
    bare.does(RequestHeaders(PlainHeaders((":path", "/v1/chat/completions"), *headers)))
    for piece in pieces:
        bare.does(RequestBody(piece))
    bare.does(RequestBody(b"", True))
    [request] = bare.handler.requests
    [found] = request.read
    return found


@pytest.mark.parametrize(("size", "cap"), [(4, 0), (4, 2), (64, 256)])
def test_the_blocks_of_a_body_that_came_in_pieces(make: type[Bare], size: int, cap: int) -> None:
    found = read(make, f"prompt-blocks/{size}/{cap}", BODY[:7], BODY[7:40], BODY[40:])
    assert found == body_blocks(BODY, size, cap) != b""


@pytest.mark.parametrize("body", [b"", b"--boundary\r\n", b"\0\0\0\0\5abcde"])
def test_what_is_no_json_has_none(make: type[Bare], body: bytes) -> None:
    assert read(make, "prompt-blocks/4/0", body) == b""


def test_a_compressed_body_has_none(make: type[Bare]) -> None:
    assert read(make, "prompt-blocks/4/0", BODY, headers=(("content-encoding", "gzip"),)) == b""


@pytest.mark.parametrize("name", ["prompt-blocks", "prompt-blocks/1", "prompt-blocks/1/-1", "prompt-blocks/1/²", "other/1/1"])
def test_other_names_are_none(name: str) -> None:
    assert not REQUEST_READERS.knows(name)
    with pytest.raises(KeyError, match=name):
        REQUEST_READERS[name]
