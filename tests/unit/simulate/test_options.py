"""Options refuse what the model cannot run with, and name all of it."""

from __future__ import annotations

import pytest

from epp.errors import UsageError
from epp.simulate.options import EngineOptions, ServerOptions


def test_all_problems_are_named_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        EngineOptions(max_num_seqs=0, tpot_ms=-1, time_scale=float("nan"), jitter_ratio=1)
    assert caught.value.problems == (
        "--max-num-seqs must be at least 1, is 0",
        "--tpot-ms must be 0 or more and finite, is -1",
        "--time-scale must be 0 or more and finite, is nan",
        "--jitter-ratio must be at least 0 and less than 1, is 1",
    )


def test_the_longest_request_fills_the_cache() -> None:
    assert EngineOptions(kv_blocks=10, block_size=32).max_model_len == 320


def test_another_seed_changes_nothing_else() -> None:
    options = ServerOptions(models=("m",))
    assert options.with_seed(5).engine == EngineOptions(seed=5)
    assert options.with_seed(0) == options
