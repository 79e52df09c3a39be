"""The files of a model that its tokenizer needs: in a folder, in the cache of the Hugging Face hub, or fetched from there.

Reads files and the network: for a thread.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TOKENIZER = "tokenizer.json"
_CONFIG = "tokenizer_config.json"
_TEMPLATE = "chat_template.jinja"
_MORE_TEMPLATES = ("additional_chat_templates", "chat_templates")
_WANTED = [
    TOKENIZER,
    _CONFIG,
    "special_tokens_map.json",
    "chat_template.*",
    *(f"{folder}/*.jinja" for folder in _MORE_TEMPLATES),
]
_DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """What was found of a model."""

    tokenizer: Path
    templates: Mapping[str, str]
    """Chat templates by name, as text."""
    special_tokens: Mapping[str, str]
    """Such as ``bos_token``."""


@dataclass(frozen=True, slots=True)
class Hub:
    """How models are fetched from the Hugging Face hub; what is empty is left to its client and the environment."""

    cache_dir: str = ""
    token: str = field(default="", repr=False)
    revision: str = ""


def find(model: str, hub: Hub = Hub()) -> ModelFiles:
    """Find the files of a model.

    Args:
        model: a ``tokenizer.json``, a folder with one, or an id of the hub.
        hub: how it is fetched from there.

    Raises:
        OSError: they cannot be read or fetched; errors of the hub's client are of many more kinds.
        ValueError: they are not what they should be.
    """
    path = Path(model)
    if path.is_file():
        return _read(path)
    return _read(_snapshot(path if path.is_dir() else _from_hub(model, hub)) / TOKENIZER)


def _from_hub(model: str, hub: Hub) -> Path:
    """The folder of a model in the hub's cache, where it is fetched to if it is not there."""
    if model.startswith(("/", "./", "../")):
        raise FileNotFoundError(f"there is no file or folder {model}")
    import huggingface_hub

    given = {"cache_dir": hub.cache_dir, "token": hub.token, "revision": hub.revision}
    options: dict[str, Any] = {"allow_patterns": _WANTED, **{name: value for name, value in given.items() if value}}
    try:
        cached = Path(huggingface_hub.snapshot_download(model, local_files_only=True, **options))
    except OSError:
        cached = None
    # A model in the cache is used as it is: a picker that starts does not depend on the hub.
    if cached is not None and (cached / TOKENIZER).exists():
        return cached
    return Path(huggingface_hub.snapshot_download(model, **options))


def _snapshot(folder: Path) -> Path:
    """The folder itself, or the newest revision in it where it is a model's folder of the hub's cache."""
    revisions = folder / "snapshots"
    if not revisions.is_dir():
        return folder
    main = folder / "refs" / "main"
    named = [main.read_text().strip()] if main.is_file() else []
    return next((revisions / name for name in (*named, *sorted(each.name for each in revisions.iterdir()))), folder)


def _read(tokenizer: Path) -> ModelFiles:
    if not tokenizer.is_file():
        raise FileNotFoundError(f"there is no {tokenizer}; models without a fast tokenizer need a tokenizer service")
    folder = tokenizer.parent
    config = _json(folder / _CONFIG)
    return ModelFiles(tokenizer, _templates(folder, config), _special_tokens(folder, config))


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    document = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(document, dict):
        raise ValueError(f"{path} is not a JSON object")
    return document


def _templates(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Of the configuration; a file of its own wins, as in transformers."""
    written = config.get("chat_template") or _json(folder / "chat_template.json").get("chat_template")
    templates = {_DEFAULT: written} if isinstance(written, str) else {}
    if isinstance(written, list):
        templates |= {entry["name"]: entry["template"] for entry in written}
    for more in _MORE_TEMPLATES:
        templates |= {path.stem: path.read_text(encoding="utf-8") for path in sorted((folder / more).glob("*.jinja"))}
    if (folder / _TEMPLATE).is_file():
        templates[_DEFAULT] = (folder / _TEMPLATE).read_text(encoding="utf-8")
    return templates


def _special_tokens(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    entries = {**_json(folder / "special_tokens_map.json"), **config}
    found = {name: _token(value) for name, value in entries.items() if name.endswith("_token")}
    return {name: token for name, token in found.items() if token}


def _token(value: object) -> str:
    """A token is a text, or an object with its text and how it is treated."""
    content = value.get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) else ""
