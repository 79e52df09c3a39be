"""Every transcript, on the bare machines."""

from __future__ import annotations

import pytest

from tests.extproc.cases.all_cases import CASES
from tests.extproc.transcripts import Bare, Case, play


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_machine_follows_the_transcript(make: type[Bare], case: Case) -> None:
    bare = play(case, make)
    requests = [call for call in bare.handler.calls if call[0] == "request"]
    ends = [call for call in bare.handler.calls if call[0] == "finished"]
    assert len(ends) <= len(requests) <= 1
    if ends or case.status is not None:
        assert len(ends) == len(requests)
        assert bare.budget.used_bytes == 0


def test_case_ids_are_unique() -> None:
    assert len({case.id for case in CASES}) == len(CASES)
