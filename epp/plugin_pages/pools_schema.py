"""A JSON Schema of pools files, for editors."""

from __future__ import annotations

import typing

from epp.config.header import ACCEPTED_VERSIONS, POOLS_KIND
from epp.plugin_pages.json_schema import DIALECT, record_schema
from epp.pools.document import PoolsDocument


def pools_schema() -> dict[str, object]:
    """The schema of a whole file."""
    definitions: dict[str, object] = {}
    root = record_schema(PoolsDocument, definitions)
    properties = typing.cast("dict[str, object]", root["properties"])
    properties["apiVersion"] = {"type": "string", "enum": list(ACCEPTED_VERSIONS)}
    properties["kind"] = {"const": POOLS_KIND}
    return {"$schema": DIALECT, "title": POOLS_KIND, **root, "definitions": definitions}
