"""vLLM's generate bodies."""

from __future__ import annotations

import pytest

from epp.framework.testing import make_plugin
from epp.framework.types import Api, ErrorShape
from plugins.parsers import vllmhttp
from tests.unit.parsers.reading import parse, refused

PATH = "/inference/v1/generate"
NO_TOKENS = "invalid generate request: must have non-empty token_ids field"
parser = make_plugin(vllmhttp.PLUGIN)


def test_a_minimal_body() -> None:
    read = parse(parser, PATH, {"token_ids": [1, 2]})
    assert (read.api, read.model, read.streams, read.output_cap) == (Api.GENERATE, "", False, None)
    assert (read.rewritable, read.usage_reader, read.error_shape) == (True, "openai-usage", ErrorShape.OPENAI)


def test_all_that_is_read() -> None:
    body: dict[str, object] = {
        "model": "m",
        "token_ids": [0, 2**32 - 1, 5.0],
        "stream": True,
        "sampling_params": {"max_tokens": 7},
        "features": {"mm_hashes": {"image": ["h"]}, "mm_placeholders": {"image": [{"offset": 0, "length": 1}]}},
        "cache_salt": "s",
    }
    read = parse(parser, PATH, body)
    assert (read.model, read.streams, read.output_cap, read.document) == ("m", True, 7, body)


@pytest.mark.parametrize("ids", [None, [], "1", {}, 5, [1, "a"], [-1], [1.5], [2**32], [[1]], [True], [None]], ids=repr)
def test_token_ids_that_are_none(ids: object) -> None:
    assert refused(parser, PATH, {"token_ids": ids}) == NO_TOKENS


def test_without_token_ids() -> None:
    assert refused(parser, PATH, {"prompt": "x"}) == NO_TOKENS


@pytest.mark.parametrize("name", ["features", "sampling_params", "cache_salt"])
def test_members_of_a_wrong_type(name: str) -> None:
    assert refused(parser, PATH, {"token_ids": [1], name: 5}) == f"invalid generate request: {name} has the wrong type"
    assert parse(parser, PATH, {"token_ids": [1], name: None}).output_cap is None


@pytest.mark.parametrize("body", [b"no healthy upstream", b"", b"[1]"], ids=["text", "empty", "array"])
def test_what_is_no_object(body: bytes) -> None:
    assert refused(parser, PATH, body).startswith("error unmarshaling request body: ")
