"""single-profile-handler: one profile, once."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from epp.errors import SchedulingError
from epp.framework.results import ProfileRunResult
from epp.framework.testing import make_candidates, make_plugin, make_request
from plugins.profile_handlers import single

PROFILES = {"default": SimpleNamespace(name="default")}


def test_the_profile_runs_once() -> None:
    handler = make_plugin(single.PLUGIN)
    assert tuple(handler.pick(make_request(), PROFILES, {})) == ("default",)
    assert tuple(handler.pick(make_request(), PROFILES, {"default": None})) == ()


def test_without_profiles_nothing_runs() -> None:
    assert tuple(make_plugin(single.PLUGIN).pick(make_request(), {}, {})) == ()


def test_its_targets_are_the_result() -> None:
    candidates = make_candidates(2)
    run = ProfileRunResult(targets=(candidates[1], candidates[0]), candidates=candidates, totals=[0.5, 1.0])
    result = make_plugin(single.PLUGIN).process_results(make_request(), {"default": run})
    assert (result.primary, result.targets, result.target) == ("default", run.targets, candidates[1])
    assert result.profiles == {"default": run}


@pytest.mark.parametrize(
    ("results", "message"),
    [
        pytest.param({"default": None}, "failed to run scheduler profile 'default'", id="the profile failed"),
        pytest.param({}, "supports exactly one scheduling profile, 0 ran", id="nothing ran"),
        pytest.param({"a": None, "b": None}, "supports exactly one scheduling profile, 2 ran", id="two ran"),
    ],
)
def test_failures(results: dict[str, None], message: str) -> None:
    with pytest.raises(SchedulingError) as failure:
        make_plugin(single.PLUGIN).process_results(make_request(), results)
    assert message in str(failure.value)
