"""The file that tells a starter which ports were chosen."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path


def write_ready_file(path: str, content: Mapping[str, int]) -> None:
    """Write ``content`` as JSON; whoever sees the file sees all of it."""
    temporary = Path(f"{path}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")
    temporary.replace(path)


def remove_ready_file(path: str) -> None:
    """Remove it, if it is there."""
    Path(path).unlink(missing_ok=True)
