"""InProcess: the model's own tokenizer, in threads of this process."""

from __future__ import annotations

import asyncio
import importlib.util
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING

from epp.framework import log
from epp.framework.handle import Runtime
from epp.framework.keys import TokenizedPrompt
from epp.framework.types import ParsedBody
from plugins.tokenization.backend import TokenizationError
from plugins.tokenization.chat import Chat, Texts, prompt_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from plugins.tokenization.files import Hub
    from plugins.tokenization.template import ChatTemplates

_logger = log.get(__name__)

EXTRA = "tokenizer"
MAX_PENDING = 16
"""Prompts that wait for a thread or are in one, four for each thread: more would be late in any case."""
FIRST_RETRY_S = 1.0
LAST_RETRY_S = 300.0
"""A model that cannot be loaded is tried again after one second, then twice as long each time, up to five minutes."""


def require_libraries() -> None:
    """Check that the libraries can be imported, without importing them.

    Raises:
        ValueError: they are not installed.
    """
    missing = [name for name in ("tokenizers", "jinja2") if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"tokenizing in this process needs {' and '.join(missing)}, which is not installed: "
            f"install the extra {EXTRA!r} (pip install 'endpoint-picker[{EXTRA}]')"
        )


def refuse_foreign(prompt: Texts | Chat) -> None:
    """Check that everything in a prompt can be tokenized in this process.

    Raises:
        TokenizationError: it has media, or a template of the client's own.
    """
    if isinstance(prompt, Chat) and prompt.has_media:
        raise TokenizationError("how many tokens media take only the engine's own processor knows")
    if isinstance(prompt, Chat) and prompt.template:
        raise TokenizationError("the client sent a chat template of its own, which is not run here")


class Model:
    """The tokenizer of a model with its chat templates.

    Reads files, and the network if the model is an id of the hub: created by a thread.

    Args:
        name: a ``tokenizer.json``, a folder with one, or an id of the hub.
        hub: how it is fetched from there; None = as its client does.

    Raises:
        OSError, ValueError, and whatever the libraries raise: it cannot be loaded.
    """

    def __init__(self, name: str, hub: Hub | None = None) -> None:
        from tokenizers import Tokenizer

        from plugins.tokenization import files as model_files
        from plugins.tokenization.template import ChatTemplates

        files = model_files.find(name, hub or model_files.Hub())
        self._tokenizer: Tokenizer = Tokenizer.from_file(str(files.tokenizer))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._templates: ChatTemplates = ChatTemplates(files.templates, files.special_tokens)

    def encode(self, prompt: Texts | Chat) -> list[Sequence[int]]:
        """The tokens of each prompt: texts with the special tokens around them, a conversation with those of its template.

        Raises:
            TokenizationError: the template refuses the conversation.
        """
        if isinstance(prompt, Chat):
            return [self._ids(self.render(prompt), special=False)]
        return [self._ids(text, special=True) for text in prompt.prompts]

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer itself."""
        return self._tokenizer

    def render(self, chat: Chat) -> str:
        """The text of a conversation.

        Raises:
            TokenizationError: the template refuses it.
        """
        return self._templates.render(chat)

    def _ids(self, text: str, *, special: bool) -> Sequence[int]:
        return array("I", self._tokenizer.encode(text, add_special_tokens=special).ids)


class InProcess:
    """Loads a model in the background and tokenizes with it.

    Args:
        name: as for ``Model``.
        runtime: threads and background work.
        first_retry_s: seconds after the first failure to load.
    """

    def __init__(self, name: str, runtime: Runtime | None, *, first_retry_s: float = FIRST_RETRY_S) -> None:
        self._name = name
        self._runtime = runtime
        self._first_retry_s = first_retry_s
        self._model: Model | None = None
        self._problem = "the tokenizer is being loaded"
        self._pending = 0
        self._loading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to load the model; requests are served meanwhile, without tokens."""
        if self._runtime is not None:
            self._loading = self._runtime.spawn(self._load(self._runtime), f"loading of tokenizer {self._name}")

    async def stop(self) -> None:
        """Give up loading."""
        if self._loading is not None:
            self._loading.cancel()

    async def tokenize(self, body: ParsedBody) -> TokenizedPrompt | None:
        """The tokens of the prompt, exactly as the engine will see them; None if there is no text.

        Raises:
            TokenizationError: the model is not loaded, too many prompts wait, or the prompt has parts that are no text.
        """
        prompt = prompt_of(body)
        if prompt is None:
            return None
        refuse_foreign(prompt)
        first, *more = await self._encoded(prompt)
        return TokenizedPrompt(first, is_exact=True, model=self._name, further=tuple(more))

    def debug_state(self) -> dict[str, object]:
        """Whether the model is loaded."""
        return {"backEnd": "in-process", "loaded": self._model is not None, "pending": self._pending}

    async def _encoded(self, prompt: Texts | Chat) -> list[Sequence[int]]:
        if self._model is None or self._runtime is None:
            raise TokenizationError(self._problem)
        if self._pending >= MAX_PENDING:
            raise TokenizationError(f"{MAX_PENDING} prompts are waiting")
        self._pending += 1
        try:
            return await self._runtime.offload(self._model.encode, prompt)
        finally:
            self._pending -= 1

    async def _load(self, runtime: Runtime) -> None:
        pause_s = self._first_retry_s
        while True:
            try:
                self._model = await runtime.offload(Model, self._name)
            except Exception as error:  # noqa: BLE001 — files, the hub's client and the tokenizer fail in many ways
                self._problem = f"the tokenizer cannot be loaded: {type(error).__name__}: {error}"
                details = {"model": self._name, "error": self._problem, "retry_s": pause_s}
                _logger.warning("tokenizer not loaded, prompts are not tokenized", details=details)
            else:
                _logger.info("tokenizer loaded", model=self._name)
                return
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LAST_RETRY_S)
