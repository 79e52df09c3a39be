"""Every transcript, over loopback, on every transport."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from epp.extproc.handler import Transport
from epp.transport.grpc_server import GrpcTransport
from tests.extproc.cases import CASES
from tests.extproc.transcripts import Case
from tests.extproc.wire import play_on

TRANSPORTS: dict[str, Callable[[], Transport]] = {"grpcio": GrpcTransport}


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("case", [case for case in CASES if case.wire], ids=lambda case: case.id)
async def test_transport_follows_the_transcript(transport: str, case: Case) -> None:
    await play_on(TRANSPORTS[transport], case)
