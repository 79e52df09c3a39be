"""Fixtures that the tests of machines share."""

from __future__ import annotations

import pytest

from tests.extproc.machines import MACHINES
from tests.extproc.transcripts import Bare


@pytest.fixture(params=MACHINES)
def make(request: pytest.FixtureRequest) -> type[Bare]:
    """Makes the machine under test, with its handler."""
    return MACHINES[request.param]
