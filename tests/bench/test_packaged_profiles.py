"""The profiles in the package are what their card and the tables of the documentation say."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from rollflow.bench.probes.profile_curves import profile_curve, profile_markdown
from rollflow.bench.suites.difficulty import held_out_captions
from rollflow.bench.suites.suite import split_of
from rollflow.files.own import is_own
from rollflow.models import MODELS
from rollflow.rewards import REWARDS
from rollflow.search.profile import PACKAGED, Profile, packaged

RESULTS = Path(__file__).parents[2] / "docs/results"
NAMES = sorted(path.stem for path in PACKAGED.glob("*.npz"))
COMMANDS = dict(re.findall(r"^\| `([\w-]+)\.npz` \| `(rollflow [^`]+)` \|", (PACKAGED / "README.md").read_text(), re.M))


def test_every_file_has_a_command() -> None:
    assert sorted(COMMANDS) == NAMES
    assert len(NAMES) == 4


@pytest.mark.parametrize("name", COMMANDS)
def test_a_file_is_what_its_command_makes(name: str) -> None:
    words = shlex.split(COMMANDS[name])
    given = dict(zip(words[3::2], words[4::2], strict=True))
    assert words[:3] == ["rollflow", "bench", "profile"]
    profile = Profile.load(PACKAGED / f"{name}.npz")
    assert (profile.model, profile.reward) == (given["--model"], given["--reward"])
    assert packaged(profile.model, profile.reward) is not None
    assert profile.model in MODELS
    assert profile.reward in REWARDS
    assert (profile.parents, profile.siblings) == (int(given["--parents"]), int(given["--siblings"]))
    assert (profile.interpolant, profile.kernel, profile.seed, len(profile.levels)) == ("linear", "ddim", 0, 10)
    captions = [str(caption) for caption in held_out_captions(320, 0, totals=(3, 12))]
    assert profile.prompts == tuple(caption for caption in captions if split_of(caption) == "tuning")[:40]
    assert given["--split"] == "tuning"


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.slow
def test_the_documentation_shows_its_figures(name: str) -> None:
    profile = Profile.load(PACKAGED / f"{name}.npz")
    page = RESULTS / f"profile-{name}.md"
    assert page.read_text() == profile_markdown(profile, profile_curve(profile), COMMANDS[name], f"profile-{name}.png")
    assert is_own(page)
    assert is_own(page.with_suffix(".png"))
