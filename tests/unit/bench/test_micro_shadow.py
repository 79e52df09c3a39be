"""The benchmark of shadow configurations: every request that is to be compared is, and is waited for."""

from __future__ import annotations

import pytest

from bench.micro.shadow import OTHER_WEIGHTS, Variant, main


@pytest.mark.parametrize(("share", "compared"), [(0.0, 0), (0.25, 10), (1.0, 40)])
async def test_the_share_is_compared_before_the_next_request_comes(share: float, compared: int) -> None:
    variant = Variant(share, 3, OTHER_WEIGHTS)
    await variant.block(40)
    assert variant.shadow is not None
    assert variant.compared == compared
    assert variant.shadow.tally.skipped == {}
    assert variant.shadow.used.open_requests == 0
    await variant.stop()


def test_the_command_prints_a_line_for_each_share(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--endpoints=2", "--requests=12", "--shares=0,1"])
    _, _, _, *rows = capsys.readouterr().out.splitlines()
    assert [(row.split()[0], row.split()[-1]) for row in rows] == [("no", "0"), ("share", "0"), ("share", "12")]
