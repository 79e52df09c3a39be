"""Tokenizers on disk: which model each file belongs to, in folders of models and in caches of the Hugging Face hub.

Reads folders: for a thread.
Source: llm-d-kv-cache: pkg/tokenization/tokenizer.go, with ``a--b--c`` as ``a/b--c``, and snapshots by their references.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

_CACHED = "models--"


def discover(root: Path, file_name: str, revision: str = "") -> dict[str, Path]:
    """Model name → its tokenizer file. Folders that cannot be read are passed over.

    Args:
        root: searched with all folders in it.
        file_name: of a tokenizer.
        revision: snapshot or reference to use where a cache has several; "" = ``main``.
    """
    found: dict[str, list[Path]] = {}
    for path in _files(root, file_name):
        found.setdefault(_name(path.parent.relative_to(root), root), []).append(path)
    return {name: _chosen(paths, revision) for name, paths in found.items()}


def locate(
    model: str, root: Path, file_name: str, revision: str = "", explicit: Mapping[str, str] | None = None
) -> Path | None:
    """The tokenizer file or folder of a model; None if there is none.

    Args:
        explicit: model name → file or folder; wins.
    """
    if explicit and model in explicit:
        return Path(explicit[model])
    found = discover(root, file_name, revision)
    if model in found:
        return found[model]
    # A single tokenizer in the folder itself has no name to be known by.
    alone = root / file_name
    return alone if list(found.values()) == [alone] else None


def _files(root: Path, file_name: str) -> Iterator[Path]:
    """In lexical order. Entries of caches are links to blobs, so that the name counts and not what is behind it."""
    for folder, folders, files in os.walk(root):
        folders.sort()
        if file_name in files:
            yield Path(folder, file_name)


def _name(folder: Path, root: Path) -> str:
    for part in folder.parts:
        if part.startswith(_CACHED):
            return part.removeprefix(_CACHED).replace("--", "/", 1)
    return folder.as_posix() if folder.parts else root.resolve().name


def _chosen(paths: list[Path], revision: str) -> Path:
    """Of several snapshots that of the revision, else that of ``main``, else the first."""
    by_snapshot = {path.parent.name: path for path in reversed(paths)}
    for wanted in (revision, _reference(paths[0], revision), _reference(paths[0], "main")):
        if wanted and wanted in by_snapshot:
            return by_snapshot[wanted]
    return paths[0]


def _reference(path: Path, name: str) -> str:
    """The snapshot that a reference of the path's cache names; "" if there is none."""
    cache = next((parent for parent in path.parents if parent.name.startswith(_CACHED)), None)
    if cache is None or not name:
        return ""
    try:
        return (cache / "refs" / name).read_text(encoding="utf-8").strip()
    except OSError:
        return ""
