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


NO_ID = f"a token id, a whole number from 0 to {2**32 - 1}"


@pytest.mark.parametrize(
    ("ids", "wrong"),
    [
        (None, " must be a list of token ids, not null"),
        ("1", " must be a list of token ids, not a string"),
        ({}, " must be a list of token ids, not an object"),
        (5, " must be a list of token ids, not a number"),
        ([], " must not be empty"),
        ([1, "a"], f"[1] must be {NO_ID}"),
        ([-1], f"[0] must be {NO_ID}"),
        ([1.5], f"[0] must be {NO_ID}"),
        ([2**32], f"[0] must be {NO_ID}"),
        ([[1]], f"[0] must be {NO_ID}"),
        ([True], f"[0] must be {NO_ID}"),
        ([None], f"[0] must be {NO_ID}"),
    ],
    ids=repr,
)
def test_token_ids_that_are_none(ids: object, wrong: str) -> None:
    assert refused(parser, PATH, {"token_ids": ids}) == f"{NO_TOKENS}: token_ids{wrong}"


def test_without_token_ids() -> None:
    assert refused(parser, PATH, {"prompt": "x"}).startswith(NO_TOKENS)


@pytest.mark.parametrize(
    ("name", "what"), [("features", "an object"), ("sampling_params", "an object"), ("cache_salt", "a string")]
)
def test_members_of_a_wrong_type(name: str, what: str) -> None:
    body = {"token_ids": [1], name: 5}
    assert refused(parser, PATH, body) == f"invalid generate request: {name} must be {what}, not a number"
    assert parse(parser, PATH, {"token_ids": [1], name: None}).output_cap is None


@pytest.mark.parametrize("body", [b"no healthy upstream", b"", b"[1]"], ids=["text", "empty", "array"])
def test_what_is_no_object(body: bytes) -> None:
    assert refused(parser, PATH, body).startswith("error unmarshaling request body: ")
