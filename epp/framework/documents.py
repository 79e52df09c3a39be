"""YAML and JSON files as plain values that remember where each of them was written.

For the small files that are read while the process runs (endpoints, objects); the configuration has a loader of its own.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import yaml

Path = tuple[str | int, ...]
"""Keys and positions from the top of a document."""

MAX_NODES = 200_000
"""Aliases can make a small file unfold into something huge."""
MAX_DEPTH = 50


def path_text(path: Path) -> str:
    """A path as it is shown: ``endpoints[2].port``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


class DocumentError(ValueError):
    """The text is no YAML, or no sensible one.

    Args:
        message: what is wrong.
        line, column: where, from 1; 0 = unknown.
    """

    def __init__(self, message: str, line: int = 0, column: int = 0) -> None:
        super().__init__(message)
        self.line = line
        self.column = column


@dataclass(slots=True)
class Document:
    """One document of a file."""

    value: object
    """dicts with string keys, lists and scalars; None for an empty document."""
    places: dict[Path, tuple[int, int]] = field(default_factory=dict)
    """Line and column, from 1, of each value."""
    texts: dict[Path, str] = field(default_factory=dict)
    """Scalars as they are written: ``1.10`` is a number of value 1.1."""

    def place(self, path: Path) -> tuple[int, int]:
        """Where a value was written, or else the nearest thing around it."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, (0, 0))


def read_documents(text: str) -> list[Document]:
    """All documents of a text, empty ones included.

    Raises:
        DocumentError: bad syntax, a key that occurs twice or is no string, too deep or too large.
    """
    if text.lstrip()[:1] in ("{", "["):
        text = text.replace("\t", " ")  # JSON allows tabs between tokens and nowhere else, YAML allows none
    try:
        loader = yaml.CSafeLoader(text) if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader(text)
    except yaml.YAMLError as error:
        raise _document_error(error) from error
    documents = []
    try:
        while loader.check_node():
            node = loader.get_node()
            if node is not None:
                documents.append(_Builder(loader).document(node))
    except yaml.YAMLError as error:
        raise _document_error(error) from error
    finally:
        loader.dispose()
    return documents


class _Builder:
    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self._nodes = 0
        self._document = Document(None)

    def document(self, node: yaml.Node) -> Document:
        self._document.value = self._value(node, ())
        return self._document

    def _value(self, node: yaml.Node, path: Path) -> object:
        line, column = node.start_mark.line + 1, node.start_mark.column + 1
        self._nodes += 1
        if self._nodes > MAX_NODES or len(path) > MAX_DEPTH:
            raise DocumentError("the document is too large or too deep", line, column)
        self._document.places[path] = (line, column)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, (*path, index)) for index, item in enumerate(node.value)]
        self._document.texts[path] = node.value
        value: object = self._loader.construct_object(node)
        return value

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, object]:
        written: set[Hashable] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            if not isinstance(key_node, yaml.ScalarNode) or key_node.value in written:
                what = f"key {key_node.value!r} occurs twice" if isinstance(key_node, yaml.ScalarNode) else "a key is no string"
                raise DocumentError(what, key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            written.add(key_node.value)
        self._loader.flatten_mapping(node)
        return {str(key.value): self._value(value, (*path, str(key.value))) for key, value in node.value}


def _document_error(error: yaml.YAMLError) -> DocumentError:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    context = getattr(error, "context", None)
    message = f"{context}: {problem}" if context else str(problem)
    return DocumentError(message, mark.line + 1, mark.column + 1) if mark is not None else DocumentError(message)
