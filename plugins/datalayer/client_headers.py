"""ClientHeaders: what an HTTP data source sends to prove who it is; a token file is re-read when it changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from epp.framework import log

_logger = log.get(__name__)

CHECK_INTERVAL_S = 10.0
"""How often the token file is looked at; a rotated token is in use at most this long after it was written."""


class ClientHeaders:
    """Gives the headers of the next request.

    Args:
        fixed: sent as they are.
        token_file: holds a token that is sent as ``Authorization: Bearer``; "" = none.
        clock: seconds, monotonic.

    Raises:
        ValueError: the file cannot be used; says which and why.
    """

    def __init__(self, fixed: Mapping[str, str], token_file: str, *, clock: Callable[[], float]) -> None:
        self._fixed = dict(fixed)
        self._token_file = token_file
        self._clock = clock
        self._headers = self._read() if token_file else self._fixed
        self._next_check_s = clock() + CHECK_INTERVAL_S

    def current(self) -> Mapping[str, str]:
        """The headers with the newest token that could be read."""
        if not self._token_file:
            return self._fixed
        now = self._clock()
        if now >= self._next_check_s:
            self._next_check_s = now + CHECK_INTERVAL_S
            self._reload()
        return self._headers

    def _reload(self) -> None:
        try:
            self._headers = self._read()
        except ValueError as error:
            _logger.warning("the token file cannot be used, the previous token stays", error=str(error))

    def _read(self) -> dict[str, str]:
        try:
            token = Path(self._token_file).read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            raise ValueError(f"bearerTokenFile: {self._token_file} cannot be read: {error}") from error
        if not token or not token.isprintable():
            raise ValueError(f"bearerTokenFile: {self._token_file} holds no token on one line")
        return {**self._fixed, "Authorization": f"Bearer {token}"}
