"""Which requests are meant for a pool: by the authority that they ask for, and by headers."""

from __future__ import annotations

import re
from typing import NamedTuple

from epp.seam import Headers

AUTHORITY = ":authority"
HOST = "host"
_PORT = re.compile(r":\d*$")
_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_FORM = re.compile(rf"(\*\.)?({_LABEL}(\.{_LABEL})*|\[[0-9a-f:.]+\])(:\d{{1,5}})?")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")


class Match(NamedTuple):
    """What a request must have; one that asks for nothing fits none."""

    authorities: tuple[str, ...] = ()
    """Lower case; one of them must fit: the same, or ``*.`` and what it ends with. Without a port it fits every port."""
    headers: tuple[tuple[str, str], ...] = ()
    """Name in lower case, and value: all must be there."""

    def fits(self, authority: str, headers: Headers) -> bool:
        """Whether a request is meant.

        Args:
            authority: as of ``authority_of``.
        """
        if not self.authorities and not self.headers:
            return False
        if self.authorities and not any(covers(wanted, authority) for wanted in self.authorities):
            return False
        return all(headers.get(name) == value for name, value in self.headers)


NO_MATCH = Match()


def authority_of(headers: Headers) -> str:
    """What a request asks for, lower case and without the dot of the root; "" if it does not say."""
    authority = (headers.get(AUTHORITY) or headers.get(HOST) or "").strip().lower()
    host, port = split(authority)
    return f"{host.removesuffix('.')}{port}"


def covers(wanted: str, authority: str) -> bool:
    """A request for ``authority`` is one of those that ``wanted`` means; ``authority`` may be such a form itself."""
    host, port = split(wanted)
    asked, asked_port = split(authority)
    if port and port != asked_port:
        return False
    if host.startswith("*."):
        return asked.endswith(host[1:]) and len(asked) >= len(host)
    return asked == host


def split(authority: str) -> tuple[str, str]:
    """Host, and the port with its colon; an IPv6 address keeps its brackets."""
    found = _PORT.search(authority)
    if found is None or (authority.count(":") > 1 and "]:" not in authority):
        return authority, ""
    return authority[: found.start()], found.group()


def is_authority(text: str) -> bool:
    """Such a form can be asked for."""
    return _FORM.fullmatch(text) is not None


def is_header(name: str) -> bool:
    """A header may have this name."""
    return _HEADER.fullmatch(name) is not None
