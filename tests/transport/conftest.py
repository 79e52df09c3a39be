"""Fixtures that the tests of transports share."""

from __future__ import annotations

import pytest

from epp.seam import Transport
from tests.transport.transports import TRANSPORTS


@pytest.fixture(params=TRANSPORTS)
def make(request: pytest.FixtureRequest) -> type[Transport]:
    """Makes the transport under test."""
    return TRANSPORTS[request.param]
