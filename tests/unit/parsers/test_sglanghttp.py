"""SGLang's generate bodies."""

from __future__ import annotations

import pytest

from epp.framework.prompt import token_estimate
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


@pytest.mark.parametrize("body", [{}, {"input_ids": None}, {"prompt": "x"}], ids=repr)
def test_without_any_input(body: dict[str, object]) -> None:
    assert refused(parser, PATH, body) == ("invalid generate request: input_ids must be provided, or text, or input_embeds")


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        pytest.param({"input_ids": [[1, 2], [3]]}, 3, id="token ids of several prompts"),
        pytest.param({"text": "12345678"}, 2, id="a text"),
        pytest.param({"text": ["1234567", "12345678"]}, 4, id="several texts"),
        pytest.param({"text": "12345678", "image_data": "https://x"}, 2, id="a text with an image"),
        pytest.param({"text": "12345678", "image_data": [["a"], [{"url": "b"}]]}, 2, id="images of several prompts"),
        pytest.param({"input_embeds": [[0.5, 0.25]]}, 0, id="embeddings"),
        pytest.param({"input_ids": None, "text": "12345678"}, 2, id="null beside a text"),
    ],
)
def test_inputs(body: dict[str, object], tokens: int) -> None:
    read = parse(parser, PATH, body)
    assert (read.api, read.document, token_estimate(read)) == (Api.GENERATE, body, tokens)


@pytest.mark.parametrize("ids", [[1, "a"], [-1], [1.5], [2**32], [True], [None]], ids=repr)
def test_token_ids_that_are_none(ids: object) -> None:
    assert refused(parser, PATH, {"input_ids": ids}) == (
        "invalid generate request: input_ids must be an array of uint32 integers, or several of them"
    )


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ({"input_ids": "1"}, "input_ids must be an array of uint32 integers, or several of them, not a string"),
        ({"input_ids": {}}, "input_ids must be an array of uint32 integers, or several of them, not an object"),
        ({"input_ids": [[1], 2]}, "input_ids[1] must be a list of token ids, not a number"),
        ({"input_ids": [[1], []]}, "input_ids[1] must not be empty"),
        ({"text": 5}, "text must be a string or a list of strings, not a number"),
        ({"text": ["x", 5]}, "text[1] must be a string, not a number"),
    ],
    ids=repr,
)
def test_inputs_of_a_wrong_type(body: dict[str, object], wrong: str) -> None:
    assert refused(parser, PATH, body) == f"invalid generate request: {wrong}"


def test_an_empty_list() -> None:
    assert refused(parser, PATH, {"input_ids": []}) == "invalid generate request: input_ids cannot be empty"


@pytest.mark.parametrize(("key", "kind"), [(5, "a number"), ({}, "an object")], ids=repr)
def test_an_extra_key_that_is_no_text(key: object, kind: str) -> None:
    body: dict[str, object] = {"input_ids": [1], "extra_key": key}
    assert refused(parser, PATH, body) == (
        f"unsupported generate request: extra_key must be a string or a list of strings, not {kind}"
    )
    for accepted in (None, "x", ["x", "y"]):
        assert parse(parser, PATH, {"input_ids": [1], "extra_key": accepted}).api is Api.GENERATE


def test_the_limits_of_several_prompts_add_up() -> None:
    limits = [{"max_new_tokens": 3}, {"max_new_tokens": 4}]
    body: dict[str, object] = {"text": ["a", "b"], "sampling_params": limits}
    assert parse(parser, PATH, body).output_cap == 7
    assert parse(parser, PATH, {**body, "sampling_params": [*limits, {}]}).output_cap is None


@pytest.mark.parametrize("sampling", [None, 5, [], {"max_new_tokens": -1}, {"max_new_tokens": 1.5}, {}], ids=repr)
def test_no_usable_limit(sampling: object) -> None:
    assert parse(parser, PATH, {"input_ids": [1], "sampling_params": sampling}).output_cap is None


@pytest.mark.parametrize("body", [b"no healthy upstream", b"", b"[1]"], ids=["text", "empty", "array"])
def test_what_is_no_object(body: bytes) -> None:
    assert refused(parser, PATH, body).startswith("invalid generate request: ")
