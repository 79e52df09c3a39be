"""Pickers under test: their command lines, the files they may need, and their processes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import yaml

from bench.load.process import ServerProcess, expand, free_port

BARE_READER = "bare"
"""What reads metrics pages and does nothing with them: the least that scraping costs."""


@dataclass(frozen=True, slots=True)
class Picker:
    """A picker as the command line names it."""

    name: str
    command: str


def parse_picker(text: str) -> Picker:
    """Read ``name=command``.

    Raises:
        ValueError: there is no name or no command.
    """
    name, _, command = text.partition("=")
    if not name.isidentifier() or not command.strip():
        raise ValueError(f"{text!r} is not of the form name=command, with a name of letters, digits and underscores")
    return Picker(name, command)


def with_bare_reader(pickers: Sequence[Picker]) -> list[Picker]:
    """The pickers, and the bare reader unless one of them has its name."""
    bare = Picker(BARE_READER, "python -m bench.bare_reader --port {port} --endpoints {endpoints}")
    return [*pickers, *([] if any(picker.name == BARE_READER for picker in pickers) else [bare])]


def write_files(folder: Path, endpoints: Sequence[str], config: Path | None) -> dict[str, str]:
    """Write what placeholders refer to.

    Args:
        folder: where the files go.
        endpoints: ``host:port`` of all model servers.
        config: an EndpointPickerConfig to use; by default queue and KV cache scorers over the endpoints file.

    Returns:
        The placeholders that all pickers share.
    """
    endpoints_file = folder / "endpoints.yaml"
    endpoints_file.write_text(yaml.safe_dump({"endpoints": [_entry(index, name) for index, name in enumerate(endpoints)]}))
    config_file = folder / "config.yaml"
    text = config.read_text() if config is not None else yaml.safe_dump(_default_config())
    config_file.write_text(text.replace("{endpoints_file}", str(endpoints_file)))
    return {"endpoints": ",".join(endpoints), "endpoints_file": str(endpoints_file), "config": str(config_file)}


async def start(pickers: Sequence[Picker], shared: dict[str, str], stack: AsyncExitStack) -> dict[str, ServerProcess]:
    """Start all pickers; they end with the stack.

    Raises:
        ProcessFailed: one did not start.
    """
    running = {}
    for picker in pickers:
        port = free_port()
        ports = {"port": port, "health_port": free_port(), "metrics_port": free_port()}
        command = expand(picker.command, shared | {name: str(value) for name, value in ports.items()})
        running[picker.name] = await stack.enter_async_context(ServerProcess(command, port=port))
    return running


def _entry(index: int, endpoint: str) -> dict[str, str]:
    host, _, port = endpoint.rpartition(":")
    return {"name": f"server-{index}", "address": host, "port": port}


def _default_config() -> dict[str, object]:
    scorers = ["queue-scorer", "kv-cache-utilization-scorer"]
    return {
        "apiVersion": "llm-d.ai/v1alpha1",
        "kind": "EndpointPickerConfig",
        "plugins": [
            {"type": "file-discovery", "parameters": {"path": "{endpoints_file}"}},
            *({"type": name} for name in (*scorers, "max-score-picker", "single-profile-handler")),
        ],
        "schedulingProfiles": [
            {"name": "default", "plugins": [{"pluginRef": name} for name in (*scorers, "max-score-picker")]}
        ],
        "dataLayer": {"discovery": {"pluginRef": "file-discovery"}},
    }
