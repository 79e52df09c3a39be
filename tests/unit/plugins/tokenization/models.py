"""A small model to tokenize with: one token for each word that it knows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing

WORDS = ("<unk>", "<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>", "hello", "world", "again", "tool")
"""A word's token is its place."""
TEMPLATE = (
    "{{ bos_token }} {% for message in messages %}<|{{ message.role }}|> {{ message.content }} {{ eos_token }} {% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def tokenizer() -> Tokenizer:
    """With a token before each text, if special ones are wanted, and the limits that some models are shipped with."""
    made = Tokenizer(WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="<unk>"))
    made.pre_tokenizer = WhitespaceSplit()
    made.add_special_tokens([AddedToken(word, special=True) for word in WORDS[:6]])
    made.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    made.enable_truncation(3)
    made.enable_padding(length=8)
    return made


def write_model(
    folder: Path, template: Any = TEMPLATE, config: Mapping[str, Any] | None = None, files: Mapping[str, str] | None = None
) -> Path:
    """A folder as the hub has it.

    Args:
        folder: is made.
        template: ``chat_template`` of the configuration; None = none.
        config: more members of the configuration.
        files: further ones, by name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer().save(str(folder / "tokenizer.json"))
    document = {"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": False}, **(config or {})}
    if template is not None:
        document["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(document))
    for name, text in (files or {}).items():
        (folder / name).write_text(text)
    return folder


def words(tokens: Any) -> str:
    """The words of tokens."""
    return " ".join(WORDS[token] for token in tokens)
