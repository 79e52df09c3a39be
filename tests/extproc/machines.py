"""The machines there are: each test of machines runs over all that are installed."""

from __future__ import annotations

from importlib.util import find_spec

from tests.extproc.transcripts import Bare

MACHINES: dict[str, type[Bare]] = {"python": Bare}

if find_spec("epp_native") is not None:
    from tests.native.bare import TwinBare

    MACHINES["native"] = TwinBare
