"""A beam that is given a profile, or whose model and reward have one in the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.tiny import Redness, TinyModel

from rollflow import Plan
from rollflow.engine import Job, Task
from rollflow.errors import BadSetting, RollflowError, RollflowWarning
from rollflow.models.mixture.model import ToyModel
from rollflow.rewards.toy import ToyReward
from rollflow.search import profile as profiles
from rollflow.search.beam import LEVELS, Beam
from rollflow.search.design import Design, design
from rollflow.search.profile import Profile
from rollflow.search.purpose import Purpose

KAPPA = (0.1, 0.1, 1.0, 0.8, 0.3)


def exact(model: str = "toy", reward: str = ToyReward.name) -> Profile:
    """A profile whose sibling gains are in proportion to ``KAPPA``: f is as much for each unit of y as y itself."""
    times, y = len(KAPPA), np.array([-1.0, 0.0, 1.0])
    rewards = np.full((2, times, 2, 3, times + 1), np.nan, np.float32)
    for k, kappa in enumerate(KAPPA):
        rewards[:, k, :, :, k:] = kappa * y[:, None]
    levels = tuple(1 - k / times for k in range(times))
    return Profile(model, reward, "linear", "ddim", 0, ("a", "b"), levels, rewards)


def _designed(nfe: int) -> Design:
    return design(tuple(exact().gains().mean(0).tolist()), exact().levels, nfe)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.npz"
    path.write_bytes(exact().to_bytes())
    return path


@pytest.fixture
def tiny_file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.npz"
    path.write_bytes(exact(TinyModel.name, Redness.name).to_bytes())
    return path


def test_a_profile_becomes_levels_and_children(file: Path, line: ToyModel) -> None:
    found = _designed(30)
    assert len(found.levels) < len(KAPPA), "nothing was left out, so that this says little"
    prepared = Beam(3, profile=file).prepared(Purpose(line, (ToyReward.name,), 30))
    assert prepared == Beam(3, levels=found.levels, children=tuple(map(float, found.children)))
    assert prepared.prepared(Purpose(line, ("other",), 99)) is prepared


def test_a_job_runs_what_was_designed(file: Path, line: ToyModel) -> None:
    """Each step has the children of the design; the grid has its levels."""
    job = Job(Task(line, "left", ToyReward()), Beam(profile=file), 30)
    file.unlink()
    assert isinstance(job.search, Beam)
    assert job.search.levels is not None
    assert job.search.children is not None
    assert [job.dynamics.noise_level(k) for k in range(job.sampler.steps)] == pytest.approx(job.search.levels)
    [surplus] = [30 - len(job.search.levels)]
    rows = [stage.rows for stage in job.search.schedule(job.dynamics, surplus).stages]
    assert rows == list(map(int, job.search.children))


def test_a_result_can_be_repeated_without_the_file(tiny_file: Path) -> None:
    """Its record has what was designed, and the plan of it ends in the same sample."""
    plan = Plan("a cat", model=TinyModel(), reward=Redness(), held_out=[], method=Beam(profile=tiny_file), nfe=30)
    result = plan.run()
    record = result.record()
    tiny_file.unlink()
    assert record.plan["method"].startswith("beam(levels=1.0;")
    options: dict[str, Any] = {**record.plan, "model": TinyModel(), "reward": Redness(), "held_out": []}
    options["prompt"] = "a cat"
    again = Plan(**options)
    assert again.job().plan["method"] == record.plan["method"]
    assert again.run().record().sha256 == record.sha256


def test_steps_of_the_user_s_own_keep_the_weights(tiny_file: Path) -> None:
    plan = Plan(
        "a cat", model=TinyModel(), reward=Redness(), held_out=[], method=f"beam(profile={tiny_file})", nfe=40, steps=10
    )
    rows = [stage.rows for stage in plan.search.schedule(plan.dynamics, 30).stages]  # type: ignore[attr-defined]
    assert sum(rows) == 40
    assert rows[4] > rows[0]


def test_the_packaged_profile_is_taken_by_name(monkeypatch: pytest.MonkeyPatch, line: ToyModel) -> None:
    """Unless levels or children are given; any other model or reward has the default schedule."""
    monkeypatch.setattr(
        profiles, "packaged", lambda model, reward: exact("toy", "red") if (model, reward) == ("toy", "red") else None
    )
    found = Beam().prepared(Purpose(line, ("red",), 30))
    assert (found.levels, found.parents) == (_designed(30).levels, 2)
    assert Beam().prepared(Purpose(line, ("wrapper", "red"), 30)) == found
    assert Beam().prepared(Purpose(line, ("blue",), 30)) == Beam(levels=(1.0, 0.8, 0.6, 0.4, 0.3, 0.15))
    for search in (Beam(levels=LEVELS), Beam(children=(1.0,))):
        assert search.prepared(Purpose(line, ("red",), 30)) is search


def test_a_profile_of_something_else_is_a_warning(file: Path, line: ToyModel) -> None:
    with pytest.warns(RollflowWarning, match=r"the profile is of '\w+' on toy, not of 'red' on toy"):
        assert Beam(profile=file).prepared(Purpose(line, ("red",), 30)).levels == _designed(30).levels


def test_a_profile_of_what_a_reward_wraps_is_none_of_something_else(file: Path, line: ToyModel) -> None:
    purpose = Purpose(line, ("wrapper", ToyReward.name), 30)
    assert Beam(profile=file).prepared(purpose).levels == _designed(30).levels


def test_what_is_not_chosen_is_the_default_schedule(line: ToyModel) -> None:
    assert Beam().default_levels == LEVELS
    job = Job(Task(line, "left", ToyReward()), Beam(), 70)
    assert job.search == Beam(levels=LEVELS)
    assert [stage.rows for stage in job.search.schedule(job.dynamics, 11).stages] == [3, 3, 2, 2, 2, 2, 2, 2, 2]


def test_a_small_budget_has_fewer_levels(line: ToyModel) -> None:
    """The design of equal gains leaves levels out, since one child at a level chooses nothing."""
    job = Job(Task(line, "left", ToyReward()), Beam(), 20)
    assert job.search.default_levels == (1.0, 0.8, 0.6, 0.4, 0.15)
    assert job.search.cost(job.dynamics, 20).nfe == 20


def test_a_profile_beside_levels_is_refused(file: Path) -> None:
    for settings in ({"levels": (1.0, 0.1)}, {"children": (1.0,)}):
        with pytest.raises(BadSetting, match="give either these or a profile"):
            Beam(profile=file, **settings)


def test_a_profile_that_cannot_be_read_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match="cannot be read as a profile: No such file"):
        Plan("a cat", method=f"beam(profile={tmp_path / 'none.npz'})")


def test_a_stranger_s_plan_may_not_name_a_file(file: Path) -> None:
    plan = {"prompt": "a cat", "method": f"beam(profile={file})"}
    with pytest.raises(RollflowError, match="whose settings name a file"):
        Plan.from_json(plan)
