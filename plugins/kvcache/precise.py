"""The precise prefix cache as a plugin: index, events, tokens and assumptions of one instance."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from epp.framework import log
from epp.framework.candidates import Candidates
from epp.framework.data import DataKey
from epp.framework.handle import PluginContext
from epp.framework.interfaces import HeaderEdits
from epp.framework.keys import PREFIX_CACHE_MATCH, TOKENIZED_PROMPT, PrefixMatch, TokenizedPrompt
from epp.framework.results import SchedulingResult
from epp.framework.types import Endpoint, EndpointChange, EndpointId, InferenceRequest
from plugins.kvcache.block_index import Match
from plugins.kvcache.event_index import EventIndex
from plugins.kvcache.prompts import PromptKeys, PromptTokens, adapters, prompt_keys
from plugins.kvcache.reporting import INTERVAL_S, Reporting
from plugins.kvcache.scoring import prefix_matches
from plugins.kvcache.shared_index import IndexUnavailableError, SharedLookup
from plugins.kvcache.silence import Silence
from plugins.tokenization.backend import BackEnd, TokenizationError
from plugins.tokenization.chat import client_tokens

if TYPE_CHECKING:
    from plugins.kvcache.subscriber import EventReceiver

_logger = log.get(__name__)

LOG_PAUSE_S = 60.0
"""At most one line about what fails for requests in this time."""
MOST_SHOWN = 100
"""Pods on the debug page."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What an instance is made of."""

    index: EventIndex
    receiver: EventReceiver
    reporting: Reporting
    tokenizer: BackEnd | None
    """None = other plugins make the tokens."""
    shared: SharedLookup | None
    """Where look-ups go if the index is shared with other pickers."""


class Behaviour(NamedTuple):
    """How an instance answers."""

    block_size: int
    models: frozenset[str]
    """Names of the tokenizer whose tokens count; empty = any."""
    assume_s: float
    """How long a prompt is assumed to be cached where it was sent; 0 = not at all."""
    log_interval_s: float
    """0 = no lines."""


class PrecisePrefixCache:
    """What scorer and producer have in common.

    Args:
        context: of the plugin.
        parts: what it is made of.
        behaviour: how it answers.
    """

    def __init__(self, context: PluginContext, parts: Parts, behaviour: Behaviour) -> None:
        self._name = context.name
        self._clock = context.clock
        self._runtime = context.runtime
        self._parts = parts
        self._behaviour = behaviour
        self._tokens = PromptTokens(context.key(TOKENIZED_PROMPT), behaviour.models)
        self._own_tokens: DataKey[TokenizedPrompt] = TOKENIZED_PROMPT.by(context.name)
        self._match: DataKey[dict[EndpointId, PrefixMatch]] = PREFIX_CACHE_MATCH.by(context.name)
        self._keys: DataKey[PromptKeys] = DataKey("PreciseBlockKeys", PromptKeys, context.name)
        self._endpoints: dict[EndpointId, Endpoint] = {}
        self._ids: dict[str, EndpointId] = {}
        self._silence = Silence()
        self._failures: dict[str, int] = {}
        self._next_line_s = float("-inf")
        self._reporter: asyncio.Task[None] | None = None
        waits = parts.tokenizer is not None or parts.shared is not None
        self.produce: Callable[[InferenceRequest, Candidates], Awaitable[None] | None] = (
            self._produce_waiting if waits else self._produce
        )
        """The hook; a coroutine function only where there is something to wait for."""

    # ── life cycle ──

    async def start(self) -> None:
        """Begin to receive events and to load tokenizers.

        Raises:
            OSError: the central socket cannot be bound, or the shared index cannot be reached.
        """
        if self._parts.shared is not None:
            await self._parts.shared.start()
        self._parts.receiver.start()
        self._parts.receiver.follow(list(self._endpoints.values()))
        if self._parts.tokenizer is not None:
            await self._parts.tokenizer.start()
        if self._runtime is not None:
            self._reporter = self._runtime.spawn(self._report(), f"metrics of {self._name}")

    async def stop(self) -> None:
        """End all of that."""
        if self._reporter is not None:
            self._reporter.cancel()
        if self._parts.tokenizer is not None:
            await self._parts.tokenizer.stop()
        await asyncio.to_thread(self._parts.receiver.stop)
        if self._parts.shared is not None:
            await self._parts.shared.stop()

    def endpoints_changed(self, change: EndpointChange) -> None:
        """Follow the pool."""
        for endpoint in change.removed:
            self._endpoints.pop(endpoint.id, None)
            self._silence.left(endpoint.host_port)
        for endpoint in (*change.added, *change.updated):
            self._endpoints[endpoint.id] = endpoint
        self._ids = {endpoint.host_port: endpoint.id for endpoint in self._endpoints.values()}
        self._parts.receiver.follow(list(self._endpoints.values()), change.removed)

    # ── requests ──

    def _produce(self, request: InferenceRequest, candidates: Candidates) -> None:
        """Look up what endpoints hold of a prompt that somebody tokenized."""
        prompt = self._tokens.of(request) or _of_client(request)
        if prompt is not None and (keys := self._keys_of(request, candidates, prompt)) is not None:
            self._look_up(request, keys)

    async def _produce_waiting(self, request: InferenceRequest, candidates: Candidates) -> None:
        """The same, for who tokenizes prompts or asks an index elsewhere."""
        prompt = self._tokens.of(request) or _of_client(request)
        if prompt is None and self._parts.tokenizer is not None:
            prompt = await self._tokenize(self._parts.tokenizer, request)
        if prompt is None or (keys := self._keys_of(request, candidates, prompt)) is None:
            return
        if self._parts.shared is not None:
            await self._look_up_elsewhere(self._parts.shared, request, keys)
        else:
            self._look_up(request, keys)

    def pre_request(self, request: InferenceRequest, result: SchedulingResult, edits: HeaderEdits) -> None:
        """Assume that the prompt is cached where it goes, and where it is computed."""
        # The profiles' own targets: those of the result may have the port of a proxy.
        targets = {e.host_port for e in (*result.targets_of(result.primary)[:1], *result.targets_of(result.prefill)[:1])}
        now_s = self._clock()
        keys = request.data.get(self._keys)
        for pod in targets:
            self._silence.sent(pod, now_s)
            if keys is not None and self._behaviour.assume_s:
                self._parts.index.assume(keys.each(), pod, now_s + self._behaviour.assume_s)

    def debug_state(self) -> object:
        """Index, sockets, tokenizers, and what failed."""
        counts, received = self._parts.index.counts(), self._parts.receiver.counts()
        connected, problem = self._parts.receiver.connected(), self._parts.receiver.problem
        pods = sorted(counts.pods.items(), key=lambda pod: (-pod[1], pod[0]))
        return {
            "receiving": not problem,
            "problem": problem,
            "restarts": self._parts.receiver.restarts,
            "lastProblem": self._parts.receiver.last_problem,
            "silent": self._silence.silent[:MOST_SHOWN],
            "keys": counts.keys,
            "engineKeys": counts.engine_keys,
            "orphans": counts.orphans,
            "engineBlockSize": self._parts.index.engine_block_size,
            "totals": dict(counts.totals),
            "decodeErrors": dict(counts.decode_errors),
            "podCount": len(pods),
            "pods": [
                {
                    "pod": pod,
                    "blocks": blocks,
                    "messages": received.received.get(pod, 0),
                    "connected": connected.get(pod),
                }
                for pod, blocks in pods[:MOST_SHOWN]
            ],
            "dropped": received.dropped,
            "gaps": received.gaps,
            "replays": {"done": received.replays, "failed": received.replays_failed},
            "tokenizer": self._parts.tokenizer.debug_state() if self._parts.tokenizer is not None else None,
            "failures": dict(self._failures),
        }

    # ── steps ──

    async def _tokenize(self, tokenizer: BackEnd, request: InferenceRequest) -> TokenizedPrompt | None:
        try:
            prompt = await tokenizer.tokenize(request.body)
        except TokenizationError as error:
            self._failed("tokenization", error)
            return None
        if prompt is None or not prompt.count:
            return None
        for key in dict.fromkeys((self._own_tokens, TOKENIZED_PROMPT)):
            if not request.data.has(key):
                request.data.set(key, prompt)
        return prompt

    def _keys_of(self, request: InferenceRequest, candidates: Candidates, prompt: TokenizedPrompt) -> PromptKeys | None:
        is_adapter = request.target_model in adapters(candidates)
        keys = prompt_keys(self._parts.index, request, prompt, self._behaviour.block_size, is_adapter=is_adapter)
        if keys is not None:
            request.data.set(self._keys, keys)
        return keys

    def _look_up(self, request: InferenceRequest, keys: PromptKeys) -> None:
        begun = time.perf_counter()
        found = [self._parts.index.lookup(chain, self._clock()) for chain in keys.chains]
        self._found(request, keys, found, time.perf_counter() - begun)

    async def _look_up_elsewhere(self, shared: SharedLookup, request: InferenceRequest, keys: PromptKeys) -> None:
        begun = time.perf_counter()
        try:
            found = [await shared.lookup(chain, self._clock()) for chain in keys.chains]
        except IndexUnavailableError as error:
            self._parts.reporting.lookup_failed()
            self._failed("index", error)
            return
        self._found(request, keys, found, time.perf_counter() - begun)

    def _found(
        self, request: InferenceRequest, keys: PromptKeys, found: Sequence[Mapping[str, Match]], elapsed_s: float
    ) -> None:
        self._parts.reporting.looked_up(found, elapsed_s)
        request.data.set(self._match, prefix_matches(found, self._ids, keys.total, self._behaviour.block_size))

    def _failed(self, what: str, error: Exception) -> None:
        self._failures[what] = self._failures.get(what, 0) + 1
        now_s = self._clock()
        if now_s >= self._next_line_s:
            self._next_line_s = now_s + LOG_PAUSE_S
            _logger.warning("no prefix match", plugin=self._name, what=what, error=str(error), failures=self._failures[what])

    async def _report(self) -> None:
        parts = self._parts
        next_line_s = self._clock() + self._behaviour.log_interval_s
        while True:
            await asyncio.sleep(INTERVAL_S)
            parts.reporting.write(parts.index, parts.receiver)
            if parts.shared is not None:
                parts.reporting.write_failures(parts.shared.write_errors)
            now_s = self._clock()
            self._silence.check(now_s, parts.receiver.last_message_s, parts.receiver.connected())
            if self._behaviour.log_interval_s and now_s >= next_line_s:
                next_line_s = now_s + self._behaviour.log_interval_s
                parts.reporting.log(parts.index.counts())


def _of_client(request: InferenceRequest) -> TokenizedPrompt | None:
    """Tokens that the client sent itself."""
    prompts = client_tokens(request.body)
    return TokenizedPrompt(prompts[0], is_exact=True, further=tuple(prompts[1:])) if prompts else None
