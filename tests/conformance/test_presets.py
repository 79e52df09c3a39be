"""Every preset is valid, explained, and routes requests to simulated servers as far as its parts are built."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import pytest
import yaml
from grpc import aio

from epp.commands import check
from epp.demo.data_files import data_path
from epp.demo.picker import PickerProcess
from epp.simulate.options import EngineOptions, ServerOptions
from epp.simulate.server import SimulatedPool
from tests.conformance.wire import (
    Answer,
    Stream,
    request_body,
    request_headers,
    respond,
    response_body,
    response_headers,
    std_body,
)

FOLDER = data_path("presets")
PRESETS = sorted(FOLDER.glob("*.yaml"))
each_preset = pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
SHORT, LONG = "mif.moreh.io/context-length-range=0-100", "mif.moreh.io/context-length-range=101-100000"
LABELS: Mapping[str, Sequence[str]] = {
    "prefill-decode": ["llm-d.ai/role=prefill", "llm-d.ai/role=decode", "llm-d.ai/role=decode"],
    "long-contexts": [SHORT, SHORT, LONG],
}
"""Of the servers for a preset; none for the others."""
SERVERS = 3


def names() -> set[str]:
    return {preset.stem for preset in PRESETS}


def test_there_is_one_for_each_common_need() -> None:
    needs = {"load", "prefix-load", "precise", "prefill-decode", "lora", "sessions", "long-contexts", "slo"}
    assert names() == needs | {"random"}


@each_preset
def test_it_is_valid_without_a_warning(preset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(["--strict-config", str(preset)]) == 0
    assert ", 0 warnings" in capsys.readouterr().out


@each_preset
def test_it_is_explained(preset: Path) -> None:
    lines = preset.read_text().splitlines()
    assert lines[0].startswith("# ")
    assert sum(line.lstrip().startswith("#") for line in lines) >= 5
    assert max(map(len, lines)) <= 128


@each_preset
def test_presets_it_mentions_exist(preset: Path) -> None:
    assert set(re.findall(r"\b([a-z-]+)\.yaml\b", preset.read_text())) <= names() | {"bypass"}


def unbuilt(preset: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Why it cannot be served yet; "" if it can."""
    status = check.main(["--for-serve", str(preset)])
    found = capsys.readouterr().err
    assert not status or "CFG059" in found
    return "; ".join(re.findall(r"plugin type [\w-]+ is not built yet|[\w-]+, is not built yet", found)) if status else ""


@contextlib.asynccontextmanager
async def served(preset: Path) -> AsyncIterator[tuple[aio.Channel, list[str]]]:
    """A connection to a picker with this configuration, and its servers' addresses."""
    engine = EngineOptions(time_scale=0.0)
    async with SimulatedPool(SERVERS, ServerOptions(engine=engine, models=("m",), lora=("sql",))) as pool:
        labels = LABELS.get(preset.stem, [""] * SERVERS)
        flags = [f"--endpoint={address},{label}".rstrip(",") for address, label in zip(pool.addresses, labels, strict=True)]
        async with (
            PickerProcess([f"--config-file={preset}", "--secure-serving=false", *flags]) as picker,
            aio.insecure_channel(f"127.0.0.1:{picker.grpc_port}") as channel,
        ):
            yield channel, list(pool.addresses)


async def send(channel: aio.Channel, *, prompt: str = "hello", model: str = "m", session: str = "s") -> Answer:
    """The answer to the headers of a request whose response is seen to its end."""
    stream = Stream(channel)
    await stream.send(request_headers({"x-session-id": session}), request_body(std_body(model, prompt)))
    routed = await stream.routed()
    await respond(stream, response_headers(), response_body(b'{"usage":{"prompt_tokens":1,"completion_tokens":1}}'))
    await stream.closes()
    return routed.headers


def target(answer: Answer) -> str:
    return answer.headers["x-gateway-destination-endpoint"]


@each_preset
async def test_it_routes_requests(preset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if reason := unbuilt(preset, capsys):
        pytest.skip(reason)
    async with served(preset) as (channel, addresses):
        answers = [await send(channel, session=f"s{n}") for n in range(4)]
        assert {target(answer) for answer in answers} <= set(addresses)
        if proof := PROOFS.get(preset.stem):
            await proof(channel, addresses)


async def _prefills_elsewhere(channel: aio.Channel, addresses: list[str]) -> None:
    answer = await send(channel)
    assert answer.headers["x-prefiller-host-port"] == addresses[0]
    assert target(answer) in addresses[1:]


async def _keeps_sessions(channel: aio.Channel, addresses: list[str]) -> None:
    for session in ("a", "b", "c"):
        targets = {target(await send(channel, session=session)) for _ in range(4)}
        assert len(targets) == 1, session


async def _tells_long_from_short(channel: aio.Channel, addresses: list[str]) -> None:
    assert target(await send(channel, prompt="short")) in addresses[:2]
    assert target(await send(channel, prompt="long " * 500)) == addresses[2]


async def _serves_adapters(channel: aio.Channel, addresses: list[str]) -> None:
    assert target(await send(channel, model="sql")) in addresses


async def _goes_where_the_prefix_is(channel: aio.Channel, addresses: list[str]) -> None:
    """Whichever server has a conversation keeps it; new ones go to the others."""
    homes = {}
    for name in "abcdef":
        homes[name] = target(await send(channel, prompt=name * 2000))
    assert set(homes.values()) == set(addresses), "prompts that nobody has cached are spread"
    for name, home in homes.items():
        assert target(await send(channel, prompt=name * 2000 + "more")) == home, name


PROOFS = {
    "prefix-load": _goes_where_the_prefix_is,
    "prefill-decode": _prefills_elsewhere,
    "sessions": _keeps_sessions,
    "long-contexts": _tells_long_from_short,
    "lora": _serves_adapters,
}
"""What else a preset promises."""


def test_profiles_name_only_declared_plugins_and_use_all_scorers() -> None:
    for preset in PRESETS:
        document = yaml.safe_load(preset.read_text())
        referred = {ref["pluginRef"] for profile in document["schedulingProfiles"] for ref in profile["plugins"]}
        declared = {plugin["type"] for plugin in document["plugins"]}
        assert referred <= declared
        assert {name for name in declared if name.endswith("-scorer")} <= referred, preset.stem
