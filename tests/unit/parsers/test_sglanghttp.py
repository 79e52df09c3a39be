"""SGLang's generate bodies."""

from __future__ import annotations

import pytest

from epp.framework.testing import make_plugin
from epp.framework.types import Api
from plugins.parsers import sglanghttp
from tests.unit.parsers.reading import parse, refused

PATH = "/generate"
parser = make_plugin(sglanghttp.PLUGIN)


def test_a_minimal_body() -> None:
    body: dict[str, object] = {"input_ids": [1, 2]}
    read = parse(parser, PATH, body)
    assert (read.api, read.model, read.streams, read.output_cap) == (Api.GENERATE, "", False, None)
    assert (read.rewritable, read.usage_reader, read.document) == (False, "sglang-usage", body)


def test_all_that_is_read() -> None:
    body: dict[str, object] = {
        "input_ids": [0, 2**32 - 1],
        "extra_key": "salt",
        "stream": True,
        "sampling_params": {"max_new_tokens": 7},
        "model": "ignored",
    }
    read = parse(parser, PATH, body)
    assert (read.streams, read.output_cap, read.model) == (True, 7, "")


@pytest.mark.parametrize("path", ["/generate", "/generate/", "generate"])
def test_it_is_the_whole_path(path: str) -> None:
    assert parse(parser, path, {"input_ids": [1]}).api is Api.GENERATE


@pytest.mark.parametrize("path", ["/v1/generate", "/inference/v1/generate", "/x/generate"])
def test_other_paths_that_end_so(path: str) -> None:
    assert refused(parser, path, {"input_ids": [1]}) == f"unsupported path: {path}"


@pytest.mark.parametrize("body", [{}, {"input_ids": None}, {"text": "x"}], ids=repr)
def test_without_token_ids(body: dict[str, object]) -> None:
    assert refused(parser, PATH, body) == "invalid generate request: input_ids must be provided"


@pytest.mark.parametrize("ids", ["1", {}, 5, [1, "a"], [-1], [1.5], [2**32], [[1]], [True], [None]], ids=repr)
def test_token_ids_that_are_none(ids: object) -> None:
    assert refused(parser, PATH, {"input_ids": ids}) == (
        "invalid generate request: input_ids must be an array of uint32 integers"
    )


def test_an_empty_list() -> None:
    assert refused(parser, PATH, {"input_ids": []}) == "invalid generate request: input_ids cannot be empty"


@pytest.mark.parametrize("key", [5, ["a"], {}], ids=repr)
def test_an_extra_key_that_is_no_text(key: object) -> None:
    body: dict[str, object] = {"input_ids": [1], "extra_key": key}
    assert refused(parser, PATH, body) == "unsupported generate request: extra_key must be a string"
    assert parse(parser, PATH, {"input_ids": [1], "extra_key": None}).api is Api.GENERATE


@pytest.mark.parametrize("sampling", [None, 5, [], {"max_new_tokens": -1}, {"max_new_tokens": 1.5}, {}], ids=repr)
def test_no_usable_limit(sampling: object) -> None:
    assert parse(parser, PATH, {"input_ids": [1], "sampling_params": sampling}).output_cap is None


@pytest.mark.parametrize("body", [b"no healthy upstream", b"", b"[1]"], ids=["text", "empty", "array"])
def test_what_is_no_object(body: bytes) -> None:
    assert refused(parser, PATH, body).startswith("invalid generate request: ")
