"""Every transcript, over loopback, on every transport."""

from __future__ import annotations

import pytest

from tests.extproc.cases.all_cases import CASES
from tests.extproc.transcripts import Case
from tests.extproc.wire import play_on
from tests.transport.transports import MakeTransport


@pytest.mark.parametrize("case", [case for case in CASES if case.wire], ids=lambda case: case.id)
async def test_transport_follows_the_transcript(make: MakeTransport, case: Case) -> None:
    await play_on(make, case)
