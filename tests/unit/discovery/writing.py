"""Ways in which files change."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

Write = Callable[[Path, str], None]


def in_place(path: Path, text: str) -> None:
    """Truncate and write."""
    path.write_text(text)


def by_rename(path: Path, text: str) -> None:
    """Write beside it, rename over it."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    new.replace(path)


def by_backup(path: Path, text: str) -> None:
    """Move the old one away and create it anew, as some editors do."""
    if path.exists():
        path.replace(path.with_name(f"{path.name}~"))
    path.write_text(text)


def by_config_map(path: Path, text: str) -> None:
    """Swap the ``..data`` link, as the kubelet does with a ConfigMap."""
    directory = path.parent
    generation = len(list(directory.glob("..generation*")))
    data = directory / f"..generation{generation}"
    data.mkdir()
    (data / path.name).write_text(text)
    link = directory / "..data_new"
    link.symlink_to(data.name)
    os.replace(link, directory / "..data")
    if not path.is_symlink():
        path.unlink(missing_ok=True)
        path.symlink_to(f"..data/{path.name}")


def write_bytes(path: Path, data: bytes) -> None:
    """Truncate and write what need not be text."""
    path.write_bytes(data)


def make_directory(path: Path) -> None:
    """Create it."""
    path.mkdir()


def remove(path: Path) -> None:
    """Delete the file."""
    path.unlink()


async def watch_begun() -> None:
    """Let a watch begin whose task was just created: what changed before is found by polling only."""
    for _ in range(3):
        await asyncio.sleep(0)


WAYS: tuple[Write, ...] = (in_place, by_rename, by_backup, by_config_map)
