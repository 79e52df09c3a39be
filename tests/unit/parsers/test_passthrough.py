"""Bodies that nobody reads."""

from __future__ import annotations

import pytest

from epp.framework.testing import make_plugin
from epp.framework.types import Api
from plugins.parsers import passthrough
from tests.unit.parsers.reading import parse

parser = make_plugin(passthrough.PLUGIN)


@pytest.mark.parametrize("body", [b"", b"passthrough-parser", b'{"model":"m","stream":true}', b"\xff\0"], ids=repr)
def test_any_body_is_taken_unread(body: bytes) -> None:
    read = parse(parser, "/anything", body)
    assert (read.api, read.model, read.document) == (Api.RAW, "", {})
    assert (read.streams, read.rewritable, read.usage_reader, read.skip_response) == (False, False, "", False)


def test_it_takes_every_path_and_serves_any_protocol() -> None:
    assert (parser.paths, parser.app_protocols) == ((), ())
