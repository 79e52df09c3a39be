"""Which parser a path belongs to."""

from __future__ import annotations

import pytest

from epp.errors import ErrorCode, RequestError
from epp.framework.registry import PluginType
from epp.framework.testing import make_plugin
from epp.request.parse import NamedParser, ParserTable
from plugins.parsers import anthropic, openai, passthrough, vllmhttp

DEFAULT = (openai.PLUGIN, anthropic.PLUGIN, vllmhttp.PLUGIN, passthrough.PLUGIN)


def table(*types: PluginType) -> ParserTable:
    return ParserTable([NamedParser(f"{t.type}-{i}", t.type, make_plugin(t)) for i, t in enumerate(types)])


@pytest.mark.parametrize(
    ("path", "parser"),
    [
        ("/v1/chat/completions", "openai-parser"),
        ("/v1/completions", "openai-parser"),
        ("/v1/chat/completions/", "openai-parser"),
        (" /v1/completions ", "openai-parser"),
        ("completions", "openai-parser"),
        ("/a/b/images/generations", "openai-parser"),
        ("/v1/chat/completions/render", "openai-parser"),
        ("/v1/messages", "anthropic-parser"),
        ("/v1/messages/count_tokens", "anthropic-parser"),
        ("/inference/v1/generate", "vllmhttp-parser"),
        ("/v1/generate", "passthrough-parser"),
        ("/generate", "passthrough-parser"),
        ("/mycompletions", "passthrough-parser"),
        ("/foochat/completions", "openai-parser"),
        ("/v1/completions/x", "passthrough-parser"),
        ("/v1/Completions", "passthrough-parser"),
        ("/v1/models", "passthrough-parser"),
        ("/", "passthrough-parser"),
        ("", "passthrough-parser"),
    ],
)
def test_the_default_parsers(path: str, parser: str) -> None:
    assert table(*DEFAULT).resolve(path).type == parser


class Claims:
    """A parser of some paths."""

    app_protocols = ()

    def __init__(self, *paths: str) -> None:
        self.paths = paths


def claims(**paths: tuple[str, ...]) -> ParserTable:
    parsers = [NamedParser(name, name, Claims(*own)) for name, own in paths.items()]  # type: ignore[arg-type]  # never parses
    return ParserTable(parsers)


@pytest.mark.parametrize(
    ("path", "name"),
    [("/a/b/c", "long"), ("/b/c", "middle"), ("/x/c", "short"), ("/xb/c", "short"), ("/c", "short")],
)
def test_the_longest_suffix_wins_in_any_order(path: str, name: str) -> None:
    assert claims(short=("c",), long=("/a/b/c/",), middle=(" b/c ",)).resolve(path).name == name
    assert claims(middle=("b/c",), long=("a/b/c",), short=("c",)).resolve(path).name == name


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/pkg.Service/Generate", "service"),
        ("/prefix/pkg.Service/Other/", "service"),
        ("/pkg.Service/Own", "method"),
        ("/pkg.Service", "rest"),
        ("/pkg.Service/", "rest"),
        ("/pkg.Service/a/b", "rest"),
        ("/xpkg.Service/Generate", "rest"),
        ("/Generate", "rest"),
    ],
)
def test_a_service_with_all_its_methods(path: str, name: str) -> None:
    parsers = claims(service=("pkg.Service/*",), method=("pkg.Service/Own",), rest=())
    assert parsers.resolve(path).name == name


def test_of_equal_claims_the_earlier_wins() -> None:
    assert claims(first=("a/c",), second=("a/c",)).resolve("/a/c").name == "first"


@pytest.mark.parametrize("path", ["/foo", "/v1/messages", "/mycompletions"])
def test_nobody_takes_the_path(path: str) -> None:
    with pytest.raises(RequestError) as caught:
        table(openai.PLUGIN).resolve(path)
    assert caught.value.code is ErrorCode.BAD_REQUEST
    assert str(caught.value) == f"inference error: BadRequest - no parser registered matching path suffix for: {path}", (
        "C50: no parser for this path"
    )


def test_the_same_answer_the_second_time() -> None:
    parsers = table(*DEFAULT)
    assert parsers.resolve("/v1/messages") is parsers.resolve("/v1/messages")


def test_paths_that_clients_choose_are_not_kept_for_ever() -> None:
    parsers = table(*DEFAULT)
    for number in range(3_000):
        assert parsers.resolve(f"/{number}/v1/messages").type == "anthropic-parser"
    assert len(parsers._known) <= 1024


@pytest.mark.parametrize(
    ("types", "ignored", "active"),
    [
        pytest.param((openai.PLUGIN, passthrough.PLUGIN), [], ["openai-parser-0", "passthrough-parser-1"], id="none"),
        pytest.param(
            (openai.PLUGIN, openai.PLUGIN),
            [("openai-parser-1", "another parser of type openai-parser comes earlier")],
            ["openai-parser-0"],
            id="second of a type",
        ),
        pytest.param(
            (passthrough.PLUGIN, openai.PLUGIN),
            [("openai-parser-1", "passthrough-parser-0 comes earlier and takes every path")],
            ["passthrough-parser-0"],
            id="behind the one that takes all",
        ),
        pytest.param(
            (passthrough.PLUGIN, passthrough.PLUGIN),
            [("passthrough-parser-1", "another parser of type passthrough-parser comes earlier")],
            ["passthrough-parser-0"],
            id="passthrough twice",
        ),
    ],
)
def test_parsers_that_are_never_asked(types: tuple[PluginType, ...], ignored: list[tuple[str, str]], active: list[str]) -> None:
    parsers = table(*types)
    assert [(parser.name, reason) for parser, reason in parsers.ignored] == ignored
    assert sorted(parser.name for parser in parsers.parsers) == sorted(active)


def test_without_any_parser() -> None:
    with pytest.raises(RequestError):
        ParserTable([]).resolve("/v1/completions")
