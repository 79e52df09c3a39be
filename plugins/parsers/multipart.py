"""Find text fields in a ``multipart/form-data`` body without looking into its files.

Source: RFC 7578; RFC 2046, section 5.1
"""

from __future__ import annotations

import re
from collections.abc import Set as AbstractSet

MOST_PARTS = 256
"""That are looked at; the APIs have some twenty fields."""
_MOST_HEAD_BYTES = 4096
_BOUNDARY = re.compile(r';\s*boundary=(?:"([^"]+)"|([^\s;"]+))', re.IGNORECASE)
_NAME = re.compile(rb';\s*name="?([^";\r\n]*)', re.IGNORECASE)
_FILE = re.compile(rb";\s*filename\*?=", re.IGNORECASE)


def form_fields(content_type: str, body: memoryview, names: AbstractSet[str]) -> dict[str, tuple[int, int]]:
    """Where the values of these fields lie: start and end in bytes; the last of several with one name.

    Args:
        content_type: with its boundary; without one nothing is found.
        body: a broken one is read as far as it is none.
        names: of fields that are no files.
    """
    boundary = _BOUNDARY.search(content_type)
    if boundary is None:
        return {}
    delimiter = b"--" + (boundary[1] or boundary[2]).encode("utf-8", "surrogateescape")
    data = bytes(body)
    found: dict[str, tuple[int, int]] = {}
    position = 0 if data.startswith(delimiter) else data.find(b"\r\n" + delimiter) + 2
    for _ in range(MOST_PARTS):
        head = position + len(delimiter)
        start = data.find(b"\r\n\r\n", head, head + _MOST_HEAD_BYTES) + 4
        end = data.find(b"\r\n" + delimiter, start)
        if start < 4 or end < 0:
            break
        name = _NAME.search(data, head, start)
        if name is not None and _FILE.search(data, head, start) is None and (text := name[1].decode(errors="replace")) in names:
            found[text] = (start, end)
        position = end + 2
    return found
