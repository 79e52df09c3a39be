"""``config-and-ops.md``: valid documents (V), documents with mistakes (X), command lines (A)."""

from __future__ import annotations

from tests.spec.document import Document

DOCUMENT = Document(
    "config-and-ops.md",
    counts={"V": 42, "X": 106, "A": 20},
    tested={
        "tests/config/good": "V1-42 X29 X52",
        "tests/config/bad": "X1-28 X30-51 X53-94 X99-106",
        "tests/config/test_corpus.py": "X95-98",
        "tests/unit/commands/test_flags.py": "A1 A3-17 A19 A20",
        "tests/unit/commands/test_serve.py": "A2 A18",
    },
    changed={
        "V26": "scorers see no metrics at all: None, not zeros",
        "X29": "valid, as upstream has it since v0.9.0; a warning says where the model's name is needed and not known",
        "X30": "two back ends are an error even where one is in memory: nobody can tell which one was meant",
        "X52": "the gate without a section loads with a warning, and the default source of metrics is added",
        "A2": "--endpoint, or a file-discovery plugin, is enough; the message names all ways",
    },
)
