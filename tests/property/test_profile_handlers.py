"""Profile handlers of disaggregated serving end, whatever deciders say and stages find."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.errors import SchedulingError
from plugins.profile_handlers import disagg, pd
from tests.unit.plugins.disaggregated import Says, Stage, cycle, handler_context

KEPT = st.text("abcde", max_size=5)
STAGES = st.fixed_dictionaries({}, optional={"decode": KEPT, "prefill": KEPT, "encode": KEPT, "other": KEPT})
ANSWERS = st.fixed_dictionaries({"encode": st.none() | st.booleans(), "prefill": st.none() | st.booleans()})
ORDERS = {
    "decode-first": ["decode", "encode", "prefill"],
    "prefill-first": ["prefill", "encode", "decode"],
}


@pytest.mark.parametrize("stage_order", ORDERS)
@given(kept=STAGES, answers=ANSWERS)
def test_stages_run_in_their_order_and_at_most_once(
    stage_order: str, kept: dict[str, str], answers: dict[str, bool | None]
) -> None:
    if stage_order == "prefill-first":
        answers = {**answers, "prefill": None}
    deciders = {f"{name}-decider": Says(answer) for name, answer in answers.items() if answer is not None}
    parameters: dict[str, Any] = {"stageOrder": stage_order}
    if deciders:
        parameters["deciders"] = {name.removesuffix("-decider"): name for name in deciders}
    context = handler_context(disagg.PLUGIN, **deciders)
    stages = [Stage(name, endpoints) for name, endpoints in kept.items()]
    try:
        run = cycle(disagg.PLUGIN, parameters, *stages, context=context)
    except SchedulingError:
        assert not kept.get("decode")
        return
    assert run.order == [name for name in ORDERS[stage_order] if name in run.order]
    check(run.result.target.name, run.picked(), kept)
    assert len(run.decisions) == 1
    for name, decider in deciders.items():
        assert len(decider.asked) == (name.removesuffix("-decider") in kept)


@given(kept=STAGES, answer=st.booleans())
def test_pd_runs_decode_and_perhaps_prefill(kept: dict[str, str], answer: bool) -> None:
    decider = Says(answer)
    context = handler_context(pd.PLUGIN, d=decider)
    stages = [Stage(name, endpoints) for name, endpoints in kept.items()]
    try:
        run = cycle(pd.PLUGIN, {"deciderPluginName": "d"}, *stages, context=context)
    except SchedulingError:
        assert not kept.get("decode")
        return
    assert run.order in (["decode"], ["decode", "prefill"])
    assert ("prefill" in run.order) == (answer and "prefill" in kept)
    check(run.result.target.name, run.picked(), kept)


def check(target: str, picked: dict[str, list[str]], kept: dict[str, str]) -> None:
    """Every target was kept by its own stage; prefill is never where decode is."""
    assert picked["decode"] == [target]
    assert all(set(names) <= set(kept[name]) for name, names in picked.items())
    assert picked.get("prefill", [""])[0] != target
