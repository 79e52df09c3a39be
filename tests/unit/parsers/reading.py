"""Parsers as the loader makes them, given bodies as a transport gives them."""

from __future__ import annotations

import json

import pytest

from epp.errors import ErrorCode, RequestError
from epp.framework.interfaces import Parser
from epp.framework.testing import FakeHeaders
from epp.framework.types import ParsedBody

Body = bytes | str | dict[str, object]


def encoded(body: Body) -> memoryview:
    """A body as bytes; a mapping becomes JSON."""
    if isinstance(body, dict):
        body = json.dumps(body)
    return memoryview(body.encode() if isinstance(body, str) else body)


def parse(parser: Parser, path: str, body: Body) -> ParsedBody:
    """What the parser reads; the content type says nothing, as it does for the model server's own parsers."""
    return parser.parse(path, FakeHeaders({"content-type": "text/plain"}), encoded(body))


def refused(parser: Parser, path: str, body: Body) -> str:
    """The text of the 400 that the parser answers with."""
    with pytest.raises(RequestError) as caught:
        parse(parser, path, body)
    assert caught.value.code is ErrorCode.BAD_REQUEST
    assert caught.value.reason is None
    return caught.value.message
