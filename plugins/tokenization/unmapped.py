"""A tokenizer service that was told names of models, but not this one's."""

from __future__ import annotations

from epp.framework.keys import TokenizedPrompt
from epp.framework.types import ParsedBody
from plugins.tokenization.backend import TokenizationError


class Unmapped:
    """Refuses every prompt, and says why.

    Args:
        model: that has no entry.
        parameter: where it should have one.
    """

    def __init__(self, model: str, parameter: str) -> None:
        self._problem = f"{parameter} has no entry for {model}"

    async def start(self) -> None:
        """Nothing has to be prepared."""

    async def stop(self) -> None:
        """Nothing was."""

    async def tokenize(self, body: ParsedBody) -> TokenizedPrompt | None:
        """Never.

        Raises:
            TokenizationError: always.
        """
        raise TokenizationError(self._problem)

    def debug_state(self) -> dict[str, object]:
        """Why it refuses."""
        return {"backEnd": "uds", "problem": self._problem}
