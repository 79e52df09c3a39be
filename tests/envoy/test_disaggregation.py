"""Prefill and encode on other servers, through a real Envoy and picker, by simulated servers that really do the stages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from epp.demo.data_files import data_path
from epp.demo.stack import Stack, StackOptions
from epp.simulate.faults import ERROR_STATUSES, Fault, FaultKind
from epp.simulate.options import DEFAULT_MODEL, DisaggregationOptions, EngineOptions, ServerOptions
from epp.transport.choose import NATIVE_MODULE

pytestmark = pytest.mark.envoy

TRANSPORTS = ["grpcio", "native"] if find_spec(NATIVE_MODULE) else ["grpcio"]
NOWHERE = "203.0.113.6:1"
FORGED = dict.fromkeys(
    ["x-prefiller-host-port", "mif-prefill-endpoint", "x-encoder-hosts-ports", "mif-encode-endpoints"], NOWHERE
)
"""What no client may say: a server that believed it would call this host."""
TEXT = "Where is the station? " * 20
CHAT = {"model": DEFAULT_MODEL, "messages": [{"role": "user", "content": TEXT}], "max_tokens": 8}
BODIES: Mapping[str, dict[str, Any]] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"model": DEFAULT_MODEL, "prompt": TEXT, "max_tokens": 8},
    "/v1/messages": CHAT,
    "/v1/responses": {"model": DEFAULT_MODEL, "input": TEXT, "max_output_tokens": 8},
}
IMAGES = [{"type": "image_url", "image_url": {"url": f"https://example.org/{name}.png"}} for name in "abc"]

Roles = tuple[str, ...]
StartStack = Callable[..., Any]


class Servers:
    """A stack whose servers have roles; strict ones, so that a request that comes to a wrong one fails."""

    def __init__(self, stack: Stack, client: aiohttp.ClientSession) -> None:
        self.stack = stack
        self._client = client

    async def ask(self, body: Mapping[str, Any], path: str = "/v1/chat/completions") -> tuple[str, Any]:
        """A request with forged headers; the role of who answered, and the answer."""
        async with self._client.post(self.stack.url + path, json=body, headers=FORGED) as response:
            text = await response.text()
            assert response.status == 200, text
            served_by = response.headers["x-served-by"]
            document = await response.json() if response.content_type == "application/json" else text
        (server,) = [server for server in self.stack.pool.servers if server.address == served_by]
        return self._role(server.labels), document

    async def sums(self, family: str) -> dict[str, float]:
        """A family of the servers' metrics, added up for each role."""
        sums: dict[str, float] = {}
        for server in self.stack.pool.servers:
            async with self._client.get(f"http://{server.address}/metrics") as response:
                families = text_string_to_metric_families(await response.text())
            value = sum(sample.value for each in families for sample in each.samples if sample.name == family)
            role = self._role(server.labels)
            sums[role] = sums.get(role, 0.0) + value
        return sums

    async def computed(self) -> dict[str, float]:
        """Prompt tokens that were neither cached nor fetched, for each role."""
        cached = await self.sums("vllm:prompt_tokens_cached_total")
        return {role: value - cached[role] for role, value in (await self.sums("vllm:prompt_tokens_total")).items()}

    @staticmethod
    def _role(labels: Mapping[str, str]) -> str:
        return labels["llm-d.ai/role"]


@pytest.fixture
async def start(envoy_binary: Path) -> AsyncIterator[StartStack]:
    """Factory: ``await start(config, ("prefill", "decode"), transport)``."""
    async with AsyncExitStack() as exits:

        async def start(config: Path, roles: Roles, transport: str) -> Servers:
            def options(index: int) -> ServerOptions:
                return ServerOptions(
                    engine=EngineOptions(time_scale=0.01, seed=index),
                    labels={"llm-d.ai/role": roles[index]},
                    disaggregation=DisaggregationOptions(strict_roles=True),
                )

            flags = [f"--transport={transport}"]
            stack = await exits.enter_async_context(
                Stack(StackOptions(servers=len(roles), server=options, config=str(config), picker_flags=flags))
            )
            client = await exits.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)))
            return Servers(stack, client)

        yield start


def prompt_tokens(document: Any) -> int:
    usage = document["usage"]
    return int(usage.get("prompt_tokens", usage.get("input_tokens")))


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_the_preset_prefills_on_one_server_and_decodes_on_another(start: StartStack, transport: str) -> None:
    preset = data_path("presets", "prefill-decode.yaml")
    servers = await start(preset, ("prefill", "prefill", "decode", "decode"), transport)
    size = 0
    for number, (path, body) in enumerate(BODIES.items()):
        role, document = await servers.ask({**body, "cache_salt": f"{number}"}, path)
        assert role == "decode"
        size += prompt_tokens(document)
    assert size > 4 * 100
    assert await servers.sums("vllm:request_success_total") == {"prefill": 4, "decode": 4}
    assert await servers.computed() == {"prefill": size, "decode": 0}
    assert await servers.sums("vllm:external_prefix_cache_hits_total") == {"prefill": 0, "decode": size}
    assert await servers.sums("vllm:generation_tokens_total") == {"prefill": 4, "decode": 32}
    assert await servers.sums("vllm:kv_cache_usage_perc") == {"prefill": 0, "decode": 0}


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_stream_is_the_decode_servers(start: StartStack, transport: str) -> None:
    servers = await start(data_path("presets", "prefill-decode.yaml"), ("prefill", "decode"), transport)
    role, text = await servers.ask({**CHAT, "stream": True, "stream_options": {"include_usage": True}})
    assert role == "decode"
    assert text.endswith("data: [DONE]\n\n")
    assert '"completion_tokens":8' in text
    assert await servers.sums("vllm:generation_tokens_total") == {"prefill": 1, "decode": 8}


async def test_a_server_of_both_roles_alone_computes_its_prompts_itself(start: StartStack) -> None:
    servers = await start(data_path("presets", "prefill-decode.yaml"), ("prefill-decode",), "auto")
    role, document = await servers.ask(CHAT)
    assert role == "prefill-decode"
    assert await servers.sums("vllm:external_prefix_cache_hits_total") == {role: 0}
    assert await servers.computed() == {role: prompt_tokens(document)}


async def test_an_error_of_the_prefill_server_reaches_the_client(start: StartStack) -> None:
    servers = await start(data_path("presets", "prefill-decode.yaml"), ("prefill", "decode"), "auto")
    await servers.stack.pool["sim-0"].set_faults([Fault(FaultKind.ERROR)])
    async with (
        aiohttp.ClientSession() as client,
        client.post(f"{servers.stack.url}/v1/chat/completions", json=CHAT) as response,
    ):
        assert response.status in ERROR_STATUSES
        assert response.headers["x-served-by-name"] == "sim-0"
        assert (await response.json())["error"]["message"] == "simulated failure"
    assert (await servers.computed())["decode"] == 0


def three_stages(folder: Path) -> Path:
    """Media are encoded, then every prompt is computed elsewhere."""
    deciders = {"encode": "always-disagg-multimodal-decider", "prefill": "always-disagg-pd-decider"}
    stages = ("encode", "prefill", "decode")
    document = {
        "apiVersion": "inference.networking.x-k8s.io/v1alpha1",
        "kind": "EndpointPickerConfig",
        "plugins": [
            {"type": "disagg-profile-handler", "parameters": {"deciders": deciders}},
            *[{"type": name} for name in (*deciders.values(), "disagg-headers-handler", "queue-scorer")],
            *[{"type": f"{stage}-filter"} for stage in stages],
            {"type": "max-score-picker", "parameters": {"maxNumOfEndpoints": 2}},
            {"name": "one", "type": "max-score-picker"},
        ],
        "schedulingProfiles": [
            {
                "name": stage,
                "plugins": [
                    {"pluginRef": name}
                    for name in (f"{stage}-filter", "queue-scorer", "max-score-picker" if stage == "encode" else "one")
                ],
            }
            for stage in stages
        ],
    }
    path = folder / "three-stages.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_media_are_encoded_before_the_prompt_is_computed(start: StartStack, tmp_path: Path, transport: str) -> None:
    servers = await start(three_stages(tmp_path), ("encode", "encode", "prefill", "decode", "decode"), transport)
    content = [{"type": "text", "text": TEXT}, *IMAGES]
    role, document = await servers.ask({**CHAT, "messages": [{"role": "user", "content": content}]})
    assert role == "decode"
    assert await servers.sums("vllm:request_success_total") == {"encode": 3, "prefill": 1, "decode": 1}
    encoders = [server for server in servers.stack.pool.servers if server.labels["llm-d.ai/role"] == "encode"]
    assert sorted(server.served for server in encoders) == [1, 2], "the items go round"
    assert (await servers.sums("vllm:external_prefix_cache_hits_total"))["decode"] == prompt_tokens(document)
    role, _ = await servers.ask(CHAT)
    assert role == "decode"
    assert await servers.sums("vllm:request_success_total") == {"encode": 3, "prefill": 2, "decode": 2}


THRESHOLD = 64
"""Tokens that must be missing for a prompt to be computed elsewhere: four blocks."""
DECIDERS: Mapping[str, list[dict[str, Any]]] = {
    "disagg-profile-handler": [
        {"type": "disagg-profile-handler", "parameters": {"deciders": {"prefill": "prefix-based-pd-decider"}}},
        {"type": "prefix-based-pd-decider", "parameters": {"nonCachedTokens": THRESHOLD}},
    ],
    "pd-profile-handler": [{"type": "pd-profile-handler", "parameters": {"threshold": THRESHOLD * 4}}],
}
"""By handler; the older one counts bytes, of which a token has four here."""


def by_prefix(folder: Path, handler: str) -> Path:
    """Prompts of which much is not cached where they are decoded are computed elsewhere."""
    scored = [{"pluginRef": "prefix-cache-scorer"}, {"pluginRef": "max-score-picker"}]
    document = {
        "apiVersion": "inference.networking.x-k8s.io/v1alpha1",
        "kind": "EndpointPickerConfig",
        "plugins": [
            *DECIDERS[handler],
            *[{"type": name} for name in ("prefix-cache-scorer", "disagg-headers-handler", "prefill-filter", "decode-filter")],
            {"type": "max-score-picker"},
        ],
        "schedulingProfiles": [
            {"name": stage, "plugins": [{"pluginRef": f"{stage}-filter"}, *scored]} for stage in ("prefill", "decode")
        ],
    }
    path = folder / f"{handler}.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("handler", DECIDERS)
async def test_only_what_is_not_cached_where_it_is_decoded_is_computed_elsewhere(
    start: StartStack, tmp_path: Path, handler: str, transport: str
) -> None:
    servers = await start(by_prefix(tmp_path, handler), ("prefill", "prefill", "decode", "decode"), transport)

    async def ask(text: str) -> tuple[float, float]:
        """Prompt tokens that the two roles compute for a request."""
        before = await servers.computed()
        body = {"model": DEFAULT_MODEL, "prompt": text, "max_tokens": 1}
        role, _ = await servers.ask(body, "/v1/completions")
        assert role == "decode"
        after = await servers.computed()
        return after["prefill"] - before["prefill"], after["decode"] - before["decode"]

    begin, rest = "a" * 4 * 320, "b" * 4 * 160
    assert await ask(begin) == (320, 0), "nobody has anything: computed elsewhere, fetched"
    assert await ask(begin) == (0, 16), "the server that decodes has fetched it: only its last block is computed again"
    assert await ask(begin + "c" * 4 * 48) == (0, 48), "too little is missing to ask another server"
    # The prefill server that computed the beginning is asked again, and computes what it has not.
    assert await ask(begin + rest) == (160, 0)
    assert await ask("short") == (0, 2)
