"""What a back end of the tokenizer is: something that turns the body of a request into tokens."""

from __future__ import annotations

from typing import Protocol

from epp.framework.keys import TokenizedPrompt
from epp.framework.types import ParsedBody


class TokenizationError(Exception):
    """A prompt cannot be tokenized; says why. The request goes on without tokens."""


class BackEnd(Protocol):
    """Turns bodies into tokens; what it needs is prepared in the background."""

    async def start(self) -> None:
        """Begin to prepare; returns at once."""
        ...

    async def stop(self) -> None:
        """Give up connections and background work."""
        ...

    async def tokenize(self, body: ParsedBody) -> TokenizedPrompt | None:
        """The tokens; None if a body of this kind has no prompt.

        Raises:
            TokenizationError: they cannot be had.
        """
        ...

    def debug_state(self) -> dict[str, object]:
        """What an operator wants to know of it."""
        ...
