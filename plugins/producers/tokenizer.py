"""tokenizer and token-producer: turn prompts into tokens, exactly or by estimate."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from functools import partial
from typing import Any

from epp.framework import log
from epp.framework.candidates import Candidates
from epp.framework.data import DataKey, OnDemand
from epp.framework.handle import PluginContext
from epp.framework.interfaces import DataProducer, Role
from epp.framework.keys import TOKENIZED_PROMPT, TokenizedPrompt
from epp.framework.registry import Gate, PluginType, Reads
from epp.framework.types import HeaderView, InferenceRequest, ParsedBody
from plugins.tokenization import parameters as settings
from plugins.tokenization.backend import BackEnd, TokenizationError
from plugins.tokenization.chat import client_tokens
from plugins.tokenization.estimate import Estimate
from plugins.tokenization.in_process import InProcess, require_libraries
from plugins.tokenization.media_size import VIDEO_HEADERS, MediaSizes, VideoFacts
from plugins.tokenization.parameters import BackEnds, TokenizerParams, TokenProducerParams
from plugins.tokenization.render_http import RenderHttp

_logger = log.get(__name__)

LOG_PAUSE_S = 60.0
"""At most one line about prompts that could not be tokenized in this time."""


class _Results:
    """Puts tokens where consumers look for them.

    Args:
        name: of the instance.
    """

    def __init__(self, name: str) -> None:
        self._own: DataKey[TokenizedPrompt] = TOKENIZED_PROMPT.by(name)
        self._keys: tuple[DataKey[TokenizedPrompt], ...] = tuple(dict.fromkeys((self._own, TOKENIZED_PROMPT)))

    def known(self, request: InferenceRequest, is_enough: Callable[[TokenizedPrompt], bool]) -> bool:
        """The request is tokenized already: by its client, or by an earlier producer if that is enough."""
        earlier = request.data.made(TOKENIZED_PROMPT)
        if earlier is None and (prompts := client_tokens(request.body)):
            first, *more = [array("I", ids) for ids in prompts]
            earlier = TokenizedPrompt(first, is_exact=True, further=tuple(more))
        elif earlier is None or not is_enough(earlier):
            return False
        self.write(request, earlier)
        return True

    def shared(self, request: InferenceRequest) -> bool:
        """An earlier producer has written tokens, and they are this one's too."""
        is_written = request.data.has(TOKENIZED_PROMPT)
        if is_written and not request.data.has(self._own):
            request.data.share(self._own, TOKENIZED_PROMPT)
        return is_written

    def write(self, request: InferenceRequest, prompt: TokenizedPrompt) -> None:
        """Write the tokens, unless there are none."""
        if prompt.count:
            self._set(request, prompt)

    def write_on_demand(self, request: InferenceRequest, make: Callable[[], TokenizedPrompt | None]) -> None:
        """Write what makes the tokens when somebody reads them."""
        self._set(request, OnDemand(make))

    def _set(self, request: InferenceRequest, prompt: TokenizedPrompt | OnDemand[TokenizedPrompt]) -> None:
        for key in self._keys:
            if not request.data.has(key):
                request.data.set(key, prompt)


class TokenEstimator:
    """Turn prompts into pseudo-tokens of four bytes, without a model.

    Good for counting and for finding equal beginnings; precise-prefix-cache-scorer cannot use them, as no engine knows them.
    Images take a token for each 1024 pixels, 225 where their size is not known; videos, frames times tokens of a frame; sounds,
    a quarter of their data. Headers tell of videos: `x-llm-d-video-duration-seconds`, `x-llm-d-video-resolution` (such as
    `1280x720`), `x-llm-d-video-fps`. Tokens that the client sent itself are taken as they are.

    Writes: TokenizedPrompt, with the places of media.
    Missing data: a body without a prompt gets none.
    Source: llm-d-router: pkg/epp/framework/plugins/requestcontrol/dataproducer/tokenizer/estimate.go
    """

    def __init__(self, name: str, params: settings.Estimate) -> None:
        self._results = _Results(name)
        self._estimate = Estimate(MediaSizes(params))

    def produce(self, request: InferenceRequest, candidates: Candidates) -> None:
        """Write what makes the pseudo-tokens, unless there are tokens already. Few requests have a reader of them."""
        if self._results.shared(request) or self._results.known(request, lambda _: True):
            return
        self._results.write_on_demand(request, partial(self._make, request.body, request.headers))

    def _make(self, body: ParsedBody, headers: HeaderView) -> TokenizedPrompt | None:
        prompt = self._estimate.tokenize(body, VideoFacts.of(headers))
        return prompt if prompt is not None and prompt.count else None


class Tokenizer:
    """Turn prompts into the tokens of the model.

    Back ends: none given, the model's own tokenizer runs in threads of this process (type `tokenizer` only). It is loaded while
    requests are served already, from a directory, a `tokenizer.json`, the cache of the Hugging Face hub, or the hub; needs the
    extra `tokenizer`. Prompts with images, videos or sounds are left to the other back ends: only an engine knows their tokens.
    `vllm`: a vLLM server renders, `vllm serve` or the GPU-less `vllm launch render`; plain HTTP. `udsTokenizerConfig`: llm-d's
    tokenizer service beside the picker, over gRPC on a Unix socket. `estimate`: no model, four bytes a token, with placeholders
    for media; the default of `token-producer`.
    Chats: the model's chat template is applied as transformers does it; Anthropic messages and the Responses API are converted
    to a chat first, as vLLM converts them. Completions: with the special tokens around them, each prompt of a list by itself.
    Tokens that the client sent itself are taken as they are.
    Needs: the picker must read the body. Nothing is cached.

    Writes: TokenizedPrompt, with the places of media where the back end tells them.
    Missing data: whatever fails, the request goes on without tokens: consumers estimate, or find no prefix. What failed is
        logged once a minute and counted in `/debug/plugins/state`. A client's own chat template is not run in this process.
    Source: llm-d-router: pkg/epp/framework/plugins/requestcontrol/dataproducer/tokenizer/tokenizer.go
    """

    def __init__(self, name: str, model: str, back_end: BackEnd, clock: Callable[[], float]) -> None:
        self._results = _Results(name)
        self._name = name
        self._model = model
        self._back_end = back_end
        self._clock = clock
        self._next_line_s = float("-inf")
        self._failures = 0
        self._last_error = ""

    async def start(self) -> None:
        """Let the back end prepare what it needs."""
        await self._back_end.start()

    async def stop(self) -> None:
        """Let the back end give up what it holds."""
        await self._back_end.stop()

    async def produce(self, request: InferenceRequest, candidates: Candidates) -> None:
        """Write the tokens, unless these are there already; where they cannot be had, nothing."""
        if self._results.known(request, self._is_enough):
            return
        try:
            prompt = await self._back_end.tokenize(request.body)
        except TokenizationError as error:
            self._failed(str(error))
            return
        if prompt is not None:
            self._results.write(request, prompt)

    def debug_state(self) -> object:
        """The back end, and what failed."""
        return {**self._back_end.debug_state(), "model": self._model, "failures": self._failures, "lastError": self._last_error}

    def _is_enough(self, earlier: TokenizedPrompt) -> bool:
        return earlier.is_exact and earlier.model in ("", self._model)

    def _failed(self, error: str) -> None:
        self._failures += 1
        self._last_error = error
        now = self._clock()
        if now >= self._next_line_s:
            self._next_line_s = now + LOG_PAUSE_S
            _logger.warning("prompt not tokenized", plugin=self._name, error=error, failures=self._failures)


def _create(context: PluginContext, params: BackEnds, model: str, *, estimates: bool) -> DataProducer:
    if params.estimate is not None or (estimates and params.vllm is None and params.uds_tokenizer_config is None):
        return TokenEstimator(context.name, params.estimate or settings.Estimate())
    back_end: BackEnd
    if params.vllm is not None:
        service = params.vllm
        back_end = RenderHttp(service.url, model, timeout_s=service.timeout, media_timeout_s=service.mm_timeout)
    elif params.uds_tokenizer_config is not None:
        from plugins.tokenization.render_uds import RenderUds  # loads protobuf

        back_end = RenderUds(params.uds_tokenizer_config.socket_file, model, context.runtime)
    else:
        require_libraries()
        back_end = InProcess(model, context.runtime)
    return Tokenizer(context.name, model, back_end, context.clock)


def _create_tokenizer(context: PluginContext, params: TokenizerParams) -> DataProducer:
    return _create(context, params, params.model_name, estimates=False)


def _create_producer(context: PluginContext, params: TokenProducerParams) -> DataProducer:
    return _create(context, params, params.model_name, estimates=True)


_COMMON: dict[str, Any] = {
    "roles": frozenset({Role.DATA_PRODUCER}),
    "produces": (TOKENIZED_PROMPT,),
    "reads": Reads(request_headers=VIDEO_HEADERS),
}

TOKENIZER = PluginType(
    type="tokenizer",
    hot=False,
    summary="Turns prompts into the model's tokens.",
    params=TokenizerParams,
    factory=_create_tokenizer,
    gate=Gate.PREPARE_DATA,
    example="""
        featureGates: [prepareDataPlugins]
        plugins:
        - type: tokenizer
          parameters:
            modelName: Qwen/Qwen3-8B
        - type: context-length-aware
        - type: max-score-picker
        schedulingProfiles:
        - name: default
          plugins:
          - pluginRef: context-length-aware
          - pluginRef: max-score-picker
    """,
    **_COMMON,
)

# Not an alias: without a back end the one loads a tokenizer, and so needs a model, while the other estimates.
TOKEN_PRODUCER = PluginType(
    type="token-producer",
    summary="Turns prompts into tokens, by estimate unless a back end is given.",
    params=TokenProducerParams,
    factory=_create_producer,
    example="""
        plugins:
        - type: token-producer
          parameters:
            modelName: Qwen/Qwen3-8B
            vllm:
              url: http://vllm-render:8000
        - type: context-length-aware
        - type: max-score-picker
        schedulingProfiles:
        - name: default
          plugins:
          - pluginRef: context-length-aware
          - pluginRef: max-score-picker
    """,
    **_COMMON,
)

PLUGINS = (TOKENIZER, TOKEN_PRODUCER)
