"""tokenizer and token-producer as plugins: back ends, data keys, failures; and what consumers make of the tokens."""

from __future__ import annotations

import asyncio
from array import array
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from epp.errors import Severity
from epp.framework.data import DataKey
from epp.framework.keys import TOKENIZED_PROMPT, MediaFeature, TokenizedPrompt
from epp.framework.prompt import prompt_tokens
from epp.framework.registry import PluginType
from epp.framework.testing import FakeClock, make_candidates, make_context, make_plugin, make_request
from epp.framework.types import Api, InferenceRequest, ParsedBody
from epp.process.runtime import TaskRuntime
from epp.simulate.options import ServerOptions
from epp.simulate.server import SimulatedPool
from plugins.deciders import always, prefix_based
from plugins.producers.tokenizer import LOG_PAUSE_S, TOKEN_PRODUCER, TOKENIZER, TokenEstimator, Tokenizer
from plugins.scorers import context_length_aware
from plugins.tokenization.backend import TokenizationError
from plugins.tokenization.in_process import InProcess
from plugins.tokenization.render_http import RenderHttp
from plugins.tokenization.render_uds import RenderUds
from tests.config.corpus import findings
from tests.unit.datalayer.servers import answer, serving
from tests.unit.plugins.tokenization.bodies import chat, completion
from tests.unit.plugins.tokenization.models import write_model

NOBODY = make_candidates(0)


def request_with(body: ParsedBody, **headers: str) -> InferenceRequest:
    request = make_request(headers={name.replace("_", "-"): value for name, value in headers.items()})
    request.body = body
    return request


def written(request: InferenceRequest, key: DataKey[TokenizedPrompt] = TOKENIZED_PROMPT) -> TokenizedPrompt | None:
    return request.data.get(key)


@pytest.mark.parametrize(
    ("plugin_type", "parameters", "back_end"),
    [
        pytest.param(TOKENIZER, {"modelName": "m"}, InProcess, id="tokenizer: in process"),
        pytest.param(TOKENIZER, {"modelName": "m", "udsTokenizerConfig": {}}, RenderUds, id="tokenizer: service"),
        pytest.param(TOKENIZER, {"modelName": "m", "vllm": {}}, RenderHttp, id="tokenizer: vLLM"),
        pytest.param(TOKENIZER, {"modelName": "m", "estimate": {}}, None, id="tokenizer: estimate"),
        pytest.param(TOKEN_PRODUCER, {}, None, id="token-producer: estimate"),
        pytest.param(TOKEN_PRODUCER, {"modelName": "m"}, None, id="token-producer: estimate, whatever the model"),
        pytest.param(TOKEN_PRODUCER, {"estimate": {}}, None, id="token-producer: estimate, written"),
        pytest.param(TOKEN_PRODUCER, {"modelName": "m", "udsTokenizerConfig": {}}, RenderUds, id="token-producer: service"),
        pytest.param(TOKEN_PRODUCER, {"modelName": "m", "vllm": {}}, RenderHttp, id="token-producer: vLLM"),
    ],
)
def test_back_ends(plugin_type: PluginType, parameters: dict[str, Any], back_end: type | None) -> None:
    plugin = make_plugin(plugin_type, parameters)
    if back_end is None:
        assert isinstance(plugin, TokenEstimator)
    else:
        assert isinstance(plugin, Tokenizer)
        assert isinstance(plugin._back_end, back_end)


def test_estimating_needs_no_waiting() -> None:
    plugin = make_plugin(TOKEN_PRODUCER)
    request = request_with(chat("hello"))
    assert plugin.produce(request, NOBODY) is None
    assert prompt_tokens(request) == 3, "the role counts too"


@pytest.mark.parametrize(
    "body",
    [
        ParsedBody(Api.CHAT, {"messages": [{"role": "user", "content": "…"}]}),
        ParsedBody(Api.COMPLETIONS, {"prompt": "…"}),
        ParsedBody(Api.COMPLETIONS, {"prompt": ["…", "b"]}),
        ParsedBody(Api.EMBEDDINGS, {"input": "…"}),
    ],
)
@pytest.mark.parametrize("reads", [False, True])
def test_a_long_body_is_decoded_once_somebody_reads_its_pseudo_tokens(body: ParsedBody, reads: bool) -> None:
    decoded: list[ParsedBody] = []

    def decode() -> dict[str, Any]:
        decoded.append(body)
        return {"prompt": "abcd" * 4, "input": "abcd" * 4, "messages": [{"role": "user", "content": "abcd" * 3}]}

    request = request_with(replace(body, decode=decode))
    make_plugin(TOKEN_PRODUCER).produce(request, NOBODY)
    if reads:
        assert prompt_tokens(request) >= 4
    assert len(decoded) == reads


def test_a_clients_own_tokens_are_those_of_the_whole_body() -> None:
    request = request_with(replace(completion([1]), decode=lambda: {"prompt": [1, 2, 3]}))
    make_plugin(TOKEN_PRODUCER).produce(request, NOBODY)
    found = written(request)
    assert found is not None
    assert (list(found.token_ids), found.is_exact) == ([1, 2, 3], True)


def test_headers_tell_of_videos() -> None:
    plugin = make_plugin(TOKEN_PRODUCER)
    body = chat([{"type": "video_url", "video_url": {"url": "u"}}])
    request = request_with(body, x_llm_d_video_duration_seconds="3", x_llm_d_video_resolution="1024x100", x_llm_d_video_fps="5")
    plugin.produce(request, NOBODY)
    found = written(request)
    assert found is not None
    assert [media.length_tokens for media in found.media] == [300]


def test_the_first_producer_is_the_one_that_counts() -> None:
    request = request_with(completion("hello world!"))
    for name in ("first", "second"):
        make_plugin(TOKEN_PRODUCER, None, make_context(name)).produce(request, NOBODY)
    first = written(request, TOKENIZED_PROMPT.by("first"))
    assert first is not None
    assert first is written(request) is written(request, TOKENIZED_PROMPT.by("second")), "the second had nothing to do"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(completion([1, 2, 3]), [[1, 2, 3]], id="completion"),
        pytest.param(completion([[1], [2, 3]]), [[1], [2, 3]], id="several"),
        pytest.param(ParsedBody(Api.GENERATE, {"token_ids": [4]}), [[4]], id="vLLM's generate"),
        pytest.param(ParsedBody(Api.GENERATE, {"input_ids": [4]}), [[4]], id="SGLang's generate"),
        pytest.param(ParsedBody(Api.EMBEDDINGS, {"input": [4]}), [[4]], id="embeddings"),
    ],
)
def test_a_clients_own_tokens_are_taken(body: ParsedBody, expected: list[list[int]]) -> None:
    request = request_with(body)
    make_plugin(TOKEN_PRODUCER).produce(request, NOBODY)
    found = written(request)
    assert found is not None
    assert [list(found.token_ids), *map(list, found.further)] == expected
    assert (found.is_exact, found.model, found.count) == (True, "", sum(map(len, expected)))


@pytest.mark.parametrize("prompt", [[-1], [2**32], [1.5], ["a", 1], [[1], "a"], [[]], [True]])
def test_lists_that_are_no_tokens(prompt: list[Any]) -> None:
    request = request_with(completion(prompt))
    make_plugin(TOKEN_PRODUCER).produce(request, NOBODY)
    assert written(request) is None


# ── back ends that wait ──


class Scripted:
    """A back end that gives or raises what it was told."""

    def __init__(self, *outcomes: TokenizedPrompt | Exception | None) -> None:
        self.outcomes = list(outcomes)
        self.calls: list[str] = []

    async def start(self) -> None:
        self.calls.append("start")

    async def stop(self) -> None:
        self.calls.append("stop")

    async def tokenize(self, body: ParsedBody) -> TokenizedPrompt | None:
        self.calls.append("tokenize")
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def debug_state(self) -> dict[str, object]:
        return {"backEnd": "scripted"}


EXACT = TokenizedPrompt(array("I", [1, 2]), is_exact=True, model="m")


async def test_tokens_are_written_under_both_keys() -> None:
    request = request_with(completion("hello"))
    await Tokenizer("mine", "m", Scripted(EXACT), FakeClock()).produce(request, NOBODY)
    assert written(request) is written(request, TOKENIZED_PROMPT.by("mine")) is EXACT


@pytest.mark.parametrize(
    ("earlier", "asked"),
    [
        pytest.param(EXACT, False, id="of the same model"),
        pytest.param(TokenizedPrompt([1], is_exact=True), False, id="the client's own"),
        pytest.param(TokenizedPrompt([1], is_exact=True, model="other"), True, id="of another model"),
        pytest.param(TokenizedPrompt([1], is_exact=False), True, id="an estimate"),
    ],
)
async def test_a_prompt_is_tokenized_once_for_each_model(earlier: TokenizedPrompt, asked: bool) -> None:
    request, back_end = request_with(completion("hello")), Scripted(EXACT)
    request.data.set(TOKENIZED_PROMPT, earlier)
    await Tokenizer("mine", "m", back_end, FakeClock()).produce(request, NOBODY)
    assert bool(back_end.calls) is asked
    assert written(request) is earlier
    assert written(request, TOKENIZED_PROMPT.by("mine")) is (EXACT if asked else earlier)


@pytest.mark.parametrize("outcome", [None, TokenizedPrompt((), is_exact=True)], ids=["no prompt", "no tokens"])
async def test_nothing_is_written_where_there_is_nothing(outcome: TokenizedPrompt | None) -> None:
    request = request_with(completion(""))
    await Tokenizer("mine", "m", Scripted(outcome), FakeClock()).produce(request, NOBODY)
    assert written(request) is None


async def test_failures_leave_the_request_alone_and_are_told_seldom(caplog: pytest.LogCaptureFixture) -> None:
    clock, back_end = FakeClock(), Scripted(*[TokenizationError(f"no {number}") for number in range(3)])
    plugin = Tokenizer("mine", "m", back_end, clock)
    for pause_s in (0.0, LOG_PAUSE_S - 1, 1.0):
        clock.advance(pause_s)
        request = request_with(completion("hello"))
        await plugin.produce(request, NOBODY)
        assert written(request) is None
        assert prompt_tokens(request) == 1, "estimated"
    assert [record.getMessage() for record in caplog.records] == ["prompt not tokenized"] * 2
    assert plugin.debug_state() == {"backEnd": "scripted", "model": "m", "failures": 3, "lastError": "no 2"}


async def test_the_back_end_lives_as_long_as_the_plugin() -> None:
    back_end = Scripted()
    plugin = Tokenizer("mine", "m", back_end, FakeClock())
    await plugin.start()
    await plugin.stop()
    assert back_end.calls == ["start", "stop"]


# ── consumers ──

LONG = "hello " * 60


async def test_a_whole_model(tmp_path: Path) -> None:
    context, runtime = make_context("tokenizer"), TaskRuntime()
    context.runtime = runtime
    plugin = make_plugin(TOKENIZER, {"modelName": str(write_model(tmp_path))}, context)
    await plugin.start()
    async with asyncio.timeout(10):
        await asyncio.gather(*runtime._tasks)
    request = request_with(completion(LONG))
    await plugin.produce(request, NOBODY)
    await plugin.stop()
    await runtime.stop()
    assert prompt_tokens(request) == 61
    ranges = [{"mif.moreh.io/context-length-range": text} for text in ("0-61", "62-1000")]
    scorer = make_plugin(context_length_aware.PLUGIN, {"enableFiltering": True})
    assert len(scorer.filter(request, make_candidates(2, ranges))) == 1


async def test_a_service_whose_tokens_tell_of_media() -> None:
    features = {"mm_hashes": {"image": ["h"]}, "mm_placeholders": {"image": [{"offset": 0, "length": 1}]}}
    text = orjson.dumps({"token_ids": [1], "features": features})
    async with serving(answer(text)) as server:
        parameters = {"modelName": "m", "vllm": {"url": f"http://127.0.0.1:{server.port}"}}
        plugin = make_plugin(TOKEN_PRODUCER, parameters, make_context("mine"))
        await plugin.start()
        request = request_with(chat("an image that only the server sees"))
        await plugin.produce(request, NOBODY)
        await plugin.stop()
    found = written(request)
    assert found is not None
    assert found.media == (MediaFeature("image", "h", 0, 1),)
    context = make_context()
    context.writers = {"TokenizedPrompt": "mine"}
    multimodal = next(t for t in always.PLUGINS if t.type == "always-disagg-multimodal-decider")
    assert make_plugin(multimodal, None, context).disaggregate(request, None)


def test_all_prompts_of_a_request_count() -> None:
    request = request_with(completion(["x" * 64, "y" * 64]))
    make_plugin(TOKEN_PRODUCER, None, make_context("mine")).produce(request, NOBODY)
    assert prompt_tokens(request) == 32
    context = make_context()
    context.writers = {"TokenizedPrompt": "mine"}
    decider = make_plugin(prefix_based.PLUGIN, {"nonCachedTokens": 32}, context)
    assert decider._length_tokens(request) == 32


@pytest.mark.parametrize("body", [chat("hello", "world"), completion("hello world")], ids=["chat", "completion"])
async def test_a_simulated_server_renders(body: ParsedBody) -> None:
    async with SimulatedPool(1, ServerOptions(models=("m",))) as pool:
        parameters = {"modelName": "m", "vllm": {"url": f"http://{pool.addresses[0]}"}}
        plugin = make_plugin(TOKENIZER, parameters)
        request = request_with(body)
        await plugin.produce(request, NOBODY)
        await plugin.stop()
    found = written(request)
    assert found is not None
    assert found.is_exact
    assert b"hello" in bytes(memoryview(found.token_ids).cast("B"))  # type: ignore[arg-type]  # an array


@pytest.mark.parametrize("plugin_type", [TOKENIZER, TOKEN_PRODUCER], ids=lambda plugin_type: plugin_type.type)
def test_in_a_profile_it_loads_with_a_warning(plugin_type: PluginType) -> None:
    text = f"""
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{{type: {plugin_type.type}, parameters: {{modelName: m}}}}, {{type: queue-scorer}}]
schedulingProfiles: [{{name: default, plugins: [{{pluginRef: {plugin_type.type}}}, {{pluginRef: queue-scorer}}]}}]
"""
    found = [finding for finding in findings(text) if finding.path.startswith("schedulingProfiles")]
    assert [(finding.severity, finding.code) for finding in found] == [(Severity.WARNING, "WRN014")]
