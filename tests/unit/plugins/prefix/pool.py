"""A pool of endpoints with a plugin that guesses what they have cached: requests are sent and asked about."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from epp.framework.candidates import Candidates
from epp.framework.keys import PREFIX_CACHE_MATCH, TOKENIZED_PROMPT, PrefixMatch, TokenizedPrompt, reading
from epp.framework.prompt_blocks import prompt_blocks
from epp.framework.registry import PluginType
from epp.framework.results import ProfileRunResult, SchedulingResult
from epp.framework.testing import RecordedEdits, RecordedMetrics, make_candidates, make_context, make_plugin, make_request
from epp.framework.types import Api, Endpoint, EndpointChange, EndpointMetrics, InferenceRequest
from plugins.scorers import prefix_cache

NAME = "mine"
Document = Mapping[str, Any]


def text(size: int, first: int = 0) -> str:
    """``size`` characters; block ``n`` of 64 is one of its own, from block ``first`` on."""
    return "".join(f"{n:064d}" for n in range(first, first + size // 64 + 1))[:size]


def prompt(value: object, **more: object) -> dict[str, object]:
    return {"model": "m", "prompt": value, **more}


def chat(*contents: object, **more: object) -> dict[str, object]:
    roles = ("user", "assistant")
    messages = [{"role": roles[n % 2], "content": content} for n, content in enumerate(contents)]
    return {"messages": [{"role": "system", "content": text(640)}, *messages], **more}


class Pool:
    """Endpoints a, b, c, ... and one plugin.

    Args:
        parameters: of the plugin.
        endpoints: how many, or the metrics of each.
        is_read: the transport has hashed the bodies.
    """

    def __init__(
        self,
        parameters: Mapping[str, Any] | None = None,
        endpoints: int | Sequence[EndpointMetrics] = 3,
        *,
        plugin_type: PluginType = prefix_cache.PLUGIN,
        is_read: bool = False,
    ) -> None:
        self.metrics = RecordedMetrics()
        self.context = make_context(NAME, metrics=self.metrics)
        self.plugin = make_plugin(plugin_type, parameters, self.context)
        self.candidates: Candidates = make_candidates(endpoints)
        self.plugin.endpoints_changed(EndpointChange(added=tuple(self.candidates)))
        self._is_read = is_read

    def at(self, name: str) -> Endpoint:
        return next(endpoint for endpoint in self.candidates if endpoint.name == name)

    def change(self, removed: Sequence[str] = (), added: Sequence[Endpoint] = ()) -> None:
        gone = tuple(self.at(name) for name in removed)
        self.plugin.endpoints_changed(EndpointChange(removed=gone, added=tuple(added)))
        kept = [*(endpoint for endpoint in self.candidates if endpoint not in gone), *added]
        self.candidates = Candidates(kept, [EndpointMetrics()] * len(kept))

    def measure(self, *metrics: EndpointMetrics) -> None:
        """What the engines say from now on."""
        self.candidates = Candidates(self.candidates.endpoints, metrics)

    def request(
        self, document: Document, target_model: str = "m", tokens: Sequence[Sequence[int]] = (), *, is_exact: bool = True
    ) -> InferenceRequest:
        """A request that the plugin has seen."""
        api = Api.CHAT if "messages" in document else Api.COMPLETIONS if "prompt" in document else Api.RESPONSES
        request = make_request(document=document, target_model=target_model, api=api)
        if tokens:
            request.data.set(TOKENIZED_PROMPT, TokenizedPrompt(tokens[0], is_exact=is_exact, further=tuple(tokens[1:])))
        if self._is_read:
            _, size, cap = (reader := self.plugin._settings.reader).split("/")
            request.data.set(reading(reader), prompt_blocks(document, int(size), int(cap)))
        waiting = self.plugin.produce(request, self.candidates)
        if inspect.isawaitable(waiting):
            asyncio.run(settled(waiting))
        return request

    def ask(self, document: Document, **more: Any) -> dict[str, tuple[int, int]]:
        """(held, all) blocks of each endpoint that holds some."""
        return {
            i.partition("/")[2]: (m.match_blocks, m.total_blocks) for i, m in self.found(self.request(document, **more)).items()
        }

    def found(self, request: InferenceRequest) -> Mapping[str, PrefixMatch]:
        matches = request.data.get(PREFIX_CACHE_MATCH.by(NAME))
        assert matches is not None
        return matches

    def send(
        self, document: Document, to: str, prefill: str = "", encode: str = "", name: str = "prefill", **more: Any
    ) -> None:
        """Send a request, after the plugin has seen it."""
        self.decided(self.request(document, **more), to, prefill, encode, name)

    def decided(self, request: InferenceRequest, to: str, prefill: str = "", encode: str = "", name: str = "prefill") -> None:
        """What was decided about a request."""
        picked = {"decode": to, name: prefill, "encode": encode}
        profiles = {
            profile: ProfileRunResult((self.at(target), self.at("c")), self.candidates, ())
            for profile, target in picked.items()
            if target
        }
        run = profiles["decode"]
        targets = tuple(target.at_port(1) for target in run.targets)
        result = SchedulingResult("decode", {**profiles}, targets, prefill=name)
        waiting = self.plugin.pre_request(request, result, RecordedEdits())
        if inspect.isawaitable(waiting):
            asyncio.run(settled(waiting))

    def scores(self, document: Document, **more: Any) -> list[float]:
        return list(self.plugin.score(self.request(document, **more), self.candidates))


async def settled(waiting: Any) -> None:
    await waiting
