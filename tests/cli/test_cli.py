"""The command line: what it prints, what it refuses and in how many lines, and what it leaves behind."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from support.refusals import refused
from support.tiny import Redness, TinyModel, TinyTurbo, registered  # noqa: F401
from torch import Tensor

import rollflow
from rollflow.api import Plan, run
from rollflow.cli import main
from rollflow.cli.progress import LiveProgress
from rollflow.dynamics.grids import Shifted
from rollflow.dynamics.guidance import GUIDANCE
from rollflow.dynamics.kernels import KERNELS
from rollflow.dynamics.lookahead import ODELookahead
from rollflow.errors import BadWeights, RewardUnavailable, RollflowWarning
from rollflow.files import atomic
from rollflow.files.pictures import picture, png
from rollflow.files.run_folder import RunFolder
from rollflow.output import outputs, plots
from rollflow.output.checkpoints import CheckpointFile
from rollflow.prompts import asked
from rollflow.rewards import REWARDS
from rollflow.rewards.mixing import WeightedSum
from rollflow.search import SEARCHES

PROMPT = "a red square"
EVERY = {"image.png", "baseline.png", "trace.png", "filmstrip.png", "result.json"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def loads() -> int:
    return TinyModel.loads + TinyTurbo.loads


def read(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return content


@pytest.mark.slow
@pytest.mark.draws
def test_generate_writes_all_and_prints_a_summary(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", PROMPT, "--nfe", "90", "--compare"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert {path.name for path in (folder / "rollflow-out").iterdir()} == EVERY
    content = read(folder / "rollflow-out")
    rows = dict(line.split(maxsplit=1) for line in out.splitlines() if not line.startswith("held out"))
    assert rows["prompt"] == PROMPT
    assert rows["reward"] == f"caption {content['baseline']['reward']:.4g} -> {content['reward']:.4g}"
    assert rows["budget"].startswith(f"{content['nfe_used']} of 90 NFE in ")
    assert rows["sample"] == "finished"
    assert rows["pictures"].split(", ") == [
        f"rollflow-out/{name}" for name in ("image.png", "baseline.png", "trace.png", "filmstrip.png")
    ]
    assert f"judge {content['baseline']['held_out']['judge']:.4g} -> {content['held_out']['judge']:.4g}" in out


def test_json_is_all_that_is_printed_and_what_is_on_disk(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", PROMPT, "--nfe", "90", "--json", "--out", "a/b"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == read(folder / "a" / "b")
    assert err == ""


@pytest.mark.slow
def test_same_seed_same_bits_with_and_without_comparison(folder: Path) -> None:
    for out, seed, more in (("a", "3", []), ("b", "3", ["--compare"]), ("c", "4", [])):
        assert main(["generate", PROMPT, "--nfe", "90", "--seed", seed, "--out", out, "--quiet", *more]) == 0
    a, b, c = (Path(out, "image.png").read_bytes() for out in "abc")
    assert a == b != c
    timeless = [{k: v for k, v in read(Path(out)).items() if k not in ("seconds", "baseline", "files")} for out in "ab"]
    assert timeless[0] == timeless[1]


def test_the_baseline_is_the_plain_sample_of_the_seed(folder: Path) -> None:
    assert main(["generate", PROMPT, "--nfe", "90", "--seed", "3", "--compare", "-q", "--out", "."]) == 0
    plain = run(Plan(PROMPT, nfe=90, seed=3).baseline())
    assert png(picture(plain.sample)) == (folder / "baseline.png").read_bytes()
    assert read(folder)["baseline"]["reward"] == plain.reward


@pytest.mark.parametrize("method", ["bon", "svdd", "rbf"])
@pytest.mark.slow
def test_dry_run_costs_are_those_of_the_run_and_nothing_loads(
    method: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["generate", PROMPT, "--method", method, "--nfe", "93", "--json", "--compare"]
    constructor = Redness.__init__
    monkeypatch.setattr(Redness, "__init__", lambda self: pytest.fail("a reward was loaded"))
    assert main([*command, "--dry-run"]) == 0
    costs = json.loads(capsys.readouterr().out)
    assert loads() == 0
    assert list(folder.iterdir()) == []
    monkeypatch.setattr(Redness, "__init__", constructor)
    assert main(command) == 0
    content = json.loads(capsys.readouterr().out)
    spent = {"nfe": content["nfe_used"]} | {name: content[name] for name in list(costs["search"])[1:]}
    assert costs["search"] == spent
    assert costs["baseline"]["nfe"] == content["baseline"]["nfe_used"]


def test_dry_run_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", PROMPT, "--method", "svdd", "--nfe", "93", "--dry-run"]) == 0
    cost = Plan(PROMPT, method="svdd", nfe=93).cost()
    rows = [line.rsplit(maxsplit=1) for line in capsys.readouterr().out.splitlines()[1:]]
    assert dict((name.strip(), int(amount)) for name, amount in rows) == {
        "NFE": cost.nfe,
        "network rows": cost.network_rows,
        "reward calls": cost.reward_calls,
        "decodes": cost.decodes,
        "backward passes": 0,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "scenes-bass"], "unknown model 'scenes-bass'; did you mean 'scenes-base'?"),
        (["--method", "rfb"], "unknown method 'rfb'; did you mean 'rbf'?"),
        (["--reward", "captoin"], "unknown reward 'captoin'; did you mean 'caption'?"),
        (["--interpolant", "linaer"], "unknown interpolant 'linaer'; did you mean 'linear'?"),
        (["--kernel", "sed"], "unknown kernel 'sed'; did you mean 'sde'?"),
        (["--grid", "arcs"], "unknown grid 'arcs'; did you mean 'arc'?"),
        (["--lookahead", "odd"], "unknown look-ahead 'odd'; did you mean 'ode'?"),
        (["--guidance", "dsp"], "unknown guidance 'dsp'; did you mean 'dps'?"),
        (["--guidance", "dps"], "guidance needs a differentiable reward, which 'caption' is not"),
        (["--method", "rbf", "--set", "initail=3"], "unknown setting of method rbf 'initail'; did you mean 'initial'?"),
        (["--method", "rbf", "--set", "initial=few"], "initial=few cannot be read; expected a whole number"),
        (["--set", "initial"], "expected SETTING=VALUE, not 'initial'"),
        (["--set", "kernle.eta=1"], "unknown choice 'kernle'; did you mean 'kernel'?"),
        (["--set", "grid.shift=2"], "grid.shift is set, but no grid is chosen; add --grid NAME"),
        (["--method", "rbf", "--nfe", "30"], "the smallest budget is"),
        (["--nfe", "-5"], "the smallest budget is"),
        (["--nfe", "many"], "--nfe"),
        (["--steps", "0"], "steps must be a whole number >= 1, not 0"),
        (["--seed", "-1"], "seed must be a whole number >= 0, not -1"),
        (["--sede", "1"], "--sede"),
        (["more"], "unexpected extra argument"),
        (["--out", "file/below"], "cannot write to the folder 'file/below'"),
    ],
)
def test_bad_input_is_one_line_and_loads_nothing(
    arguments: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "file").write_text("in the way")
    assert main(["generate", PROMPT, *arguments]) == 2
    assert message in refused(capsys)
    assert loads() == 0
    assert [path.name for path in folder.iterdir()] == ["file"]


@pytest.mark.parametrize("command", [["generate", " "], ["generate"], ["genrate", "x"]])
def test_bad_usage_is_one_line(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command) == 2
    refused(capsys)


def test_no_command_is_answered_with_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "Commands:" in capsys.readouterr().err
    assert main(["--help"]) == 0
    assert "Commands:" in capsys.readouterr().out


def test_the_smallest_budget_named_works(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", PROMPT, "--nfe", "1"]) == 2
    smallest = refused(capsys).removesuffix(" NFE").split()[-1]
    assert main(["generate", PROMPT, "--nfe", smallest, "-q"]) == 0


def earlier_run(folder: Path) -> dict[str, bytes]:
    assert main(["generate", PROMPT, "--nfe", "90", "--compare", "-q", "--out", str(folder)]) == 0
    return contents(folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Strays(Redness):
    """Leaves the range that it declares."""

    name, bounds = "strays", (0.0, 0.01)


def test_every_warning_is_one_line_on_stderr(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the engine, the account and the folder have to say, once each, and nowhere else but in result.json."""
    monkeypatch.setitem(REWARDS, "strays", Strays)

    def broken(*_: object) -> None:
        warnings.warn("said twice", RollflowWarning, stacklevel=1)
        raise ValueError("no font")

    monkeypatch.setattr(plots, "trace", broken)
    monkeypatch.setattr(outputs, "overoptimized", lambda *_: ["over-optimised? so it seems"])
    for method in ("rbf", "svdd"):
        assert main(["generate", PROMPT, "--nfe", "90", "--reward", "strays", "--method", method, "--out", "."]) == 0
        out, err = capsys.readouterr()
        first, *more = err.splitlines()
        assert first.startswith("warning: reward 'strays' gave ")
        assert more == [
            "warning: said twice",
            "warning: the plots could not be drawn: ValueError: no font; the sample and result.json are written",
            "warning: over-optimised? so it seems",
        ]
        assert "warning" not in out
        assert len(read(folder)["warnings"]) == 2


def test_a_prompt_that_the_model_cannot_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = earlier_run(folder)
    assert main(["generate", "a unicorn", "--nfe", "90", "--out", "."]) == 2
    assert refused(capsys) == "error: 'unicorn' is not in the vocabulary of the tiny model"
    assert contents(folder) == before


def test_a_nan_reward_names_the_row(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = earlier_run(folder)
    assert main(["generate", PROMPT, "--nfe", "90", "--reward", "broken", "--out", "."]) == 1
    assert "reward 'broken' gave nan for row 0" in refused(capsys)
    assert contents(folder) == before


def test_corrupt_weights(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    before = earlier_run(folder)

    def corrupt(self: TinyModel) -> None:
        raise BadWeights("the weights file base.safetensors cannot be read;\nreinstall rollflow")

    monkeypatch.setattr(TinyModel, "__init__", corrupt)
    assert main(["generate", PROMPT, "--nfe", "90", "--out", "."]) == 1
    assert refused(capsys) == "error: the weights file base.safetensors cannot be read; reinstall rollflow"
    assert contents(folder) == before


@pytest.mark.slow
def test_a_full_disk_leaves_the_earlier_run_whole(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = earlier_run(folder)

    def full(self: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert main(["generate", PROMPT, "--nfe", "90", "--seed", "9", "--out", "."]) == 1
    assert "No space left on device" in refused(capsys)
    assert contents(folder) == before


def test_ctrl_c_keeps_the_best_so_far(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TinyModel, "interrupt_at", 14)
    assert main(["generate", PROMPT, "--nfe", "90", "--out", "."]) == 130
    out, err = capsys.readouterr()
    assert "interrupted, the best so far" in out
    assert err == "error: interrupted; the best sample so far is in '.'; continue with --resume\n"
    content = read(folder)
    assert content["interrupted"] is True
    assert content["nfe_used"] < 90
    assert content["reward"] == max(reward for _, reward in content["trace"])
    assert set(contents(folder)) == (EVERY - {"baseline.png"}) | {"checkpoint.pt"}


def test_who_is_stopped_before_the_first_step_is_not_told_to_go_on(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(CheckpointFile, "checkpointed", stop)
    assert main(["generate", PROMPT, "--nfe", "90", "--out", "."]) == 130
    assert capsys.readouterr().err == "error: interrupted; the best sample so far is in '.'\n"
    assert {"image.png", "result.json"} <= set(contents(folder))
    assert "checkpoint.pt" not in contents(folder)


@pytest.mark.parametrize("method", ["bon", "svdd", "rbf"])
@pytest.mark.slow
def test_what_was_stopped_goes_on_to_the_same_picture(
    method: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["generate", PROMPT, "--nfe", "90", "--method", method, "-q", "--out"]
    assert main([*command, "whole"]) == 0
    monkeypatch.setattr(TinyModel, "interrupt_at", 9)
    assert main([*command, "."]) == 130
    monkeypatch.setattr(TinyModel, "interrupt_at", None)
    assert main([*command, ".", "--seed", "3", "--resume"]) == 1
    assert "belongs to another job: seed was 0, is 3" in capsys.readouterr().err
    assert main([*command, ".", "--resume"]) == 0
    assert (folder / "image.png").read_bytes() == (folder / "whole/image.png").read_bytes()
    resumed, whole = read(folder), read(folder / "whole")
    assert [resumed[key] for key in ("reward", "nfe_used", "decodes")] == [
        whole[key] for key in ("reward", "nfe_used", "decodes")
    ]
    assert not (folder / "checkpoint.pt").exists()
    capsys.readouterr()
    before = (folder / "result.json").read_bytes()
    assert main([*command, ".", "--resume"]) == 0
    assert capsys.readouterr().err == "warning: the run is already finished; its result is in '.'\n"
    assert main([*command, ".", "--resume", "--seed", "4"]) == 1
    assert "there is no checkpoint 'checkpoint.pt' to resume from" in capsys.readouterr().err
    assert (folder / "result.json").read_bytes() == before


@pytest.mark.parametrize(("more", "call"), [(["--compare"], 2), (["--method", "bon"], 1)])
def test_ctrl_c_before_anything_was_evaluated_writes_nothing(
    more: list[str], call: int, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = earlier_run(folder)
    monkeypatch.setattr(TinyModel, "interrupt_at", call)
    assert main(["generate", PROMPT, "--nfe", "90", "--out", ".", *more]) == 130
    assert refused(capsys) == "error: interrupted before there was a sample to keep"
    assert contents(folder) == before


def test_ctrl_c_while_the_weights_load(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(self: TinyModel) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(TinyModel, "__init__", stop)
    assert main(["generate", PROMPT, "--nfe", "90"]) == 130
    assert refused(capsys) == "error: interrupted before there was a sample to keep"


def test_a_sample_that_is_no_picture_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TinyModel, "decode", lambda self, x0: x0.flatten(2))
    monkeypatch.setattr(Redness, "score", lambda self, samples, prompts: samples[:, 0].mean(1))
    monkeypatch.setattr(Redness, "held_out", ())
    assert main(["generate", PROMPT, "--nfe", "90"]) == 1
    assert "a picture needs a sample of shape (3, H, W)" in refused(capsys)


def test_estimates_are_said_to_be_estimates(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", PROMPT, "--method", "rbf", "--nfe", "90", "--interpolant", "vp", "--no-finish"]) == 0
    level = read(folder / "rollflow-out")["noise_level"]
    assert f"a clean estimate at noise level {level:.2f}" in capsys.readouterr().out


def test_lists(capsys: pytest.CaptureFixture[str]) -> None:
    for command, names in (
        ("methods", {"auto", "rbf", "zero-order"}),
        ("models", {"scenes-base", "scenes-turbo", "owner/name"}),
        ("rewards", {"caption", "judge", "soft-tifa"}),
    ):
        assert main([command]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert all(len(line.split()) > 1 for line in lines)
        shown = [line.split()[0] for line in lines]
        assert main([command, "--json"]) == 0
        content = json.loads(capsys.readouterr().out)
        assert [entry["name"] for entry in content] == shown
        assert all(entry["kind"] == command[:-1] and entry["description"] for entry in content)
        assert names <= set(shown)
    assert loads() == 0


def test_the_models_say_what_diffusers_adds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["models"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("owner/name ")
    assert f"(diffusers {version('diffusers')} is installed)" in last

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", missing)
    assert main(["models", "--verbose"]) == 0
    out = capsys.readouterr().out
    assert 'needs: pip install "rollflow[diffusers]"' in out
    assert "StableDiffusion3Pipeline" in out


@pytest.mark.subprocess
@pytest.mark.parametrize("command", ["methods", "models", "rewards"])
def test_lists_do_not_wait_for_torch(command: str) -> None:
    code = (
        f"import sys; from rollflow.cli import main; codes = [main(['{command}', *more]) for more in ([], ['-v'])]\n"
        "heavy = {'torch', 'numpy', 'matplotlib', 'rich'} & set(sys.modules); sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_verbose_methods_explain_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "--verbose"]) == 0
    out = capsys.readouterr().out
    for registry in (SEARCHES, KERNELS, GUIDANCE):
        for name in registry:
            assert f"\n{name}(" in out
    assert "rbf(chains=2, initial=25, acceptance=best, quota=uniform, recombine=False)" in out
    for what in ("draw children of the same parent one at a time", "arXiv 2503.19385", "Cost: the whole budget"):
        assert what in out


@pytest.mark.slow
def test_settings_reach_what_they_name(folder: Path) -> None:
    command = ["generate", PROMPT, "--nfe", "90", "-q", "--out"]
    assert main([*command, "text", "--method", "svdd(streams=3)", "--kernel", "ddim(eta=0.5)"]) == 0
    assert main([*command, "set", "--method", "svdd", "--set", "streams=3", "--kernel", "ddim"]) == 0
    more = ["--method", "svdd", "--set", "streams=3", "--kernel", "ddim", "--set", "kernel.eta=0.5"]
    assert main([*command, "both", *more]) == 0
    assert (folder / "both/image.png").read_bytes() == (folder / "text/image.png").read_bytes()
    assert (folder / "both/image.png").read_bytes() != (folder / "set/image.png").read_bytes()
    asked = "SVDD(streams=3, temperature=0.0, ratio=1.0, noises=True, recombine=False)"
    assert read(folder / "both")["method"] == asked


def test_look_ahead_and_grid_are_taken(folder: Path) -> None:
    more = ["--lookahead", "ode", "--set", "lookahead.steps=3", "--grid", "shifted", "--set", "grid.shift=2"]
    assert main(["generate", PROMPT, "--nfe", "90", "--method", "bon", "-q", "--out", ".", *more]) == 0
    plan = Plan(PROMPT, method="bon", nfe=90, lookahead=ODELookahead(3), grid=Shifted(2.0))
    result = run(plan.job())
    content = read(folder)
    assert (content["nfe_used"], content["reward"]) == (result.spent.nfe, result.reward)
    assert run(Plan(PROMPT, method="bon", nfe=90).job()).reward != result.reward


@pytest.mark.parametrize("method", ["bon", "rbf"])
def test_progress_shows_what_was_spent(method: str) -> None:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=120)
    with LiveProgress(console=console) as progress:
        result = run(Plan(PROMPT, method=method, nfe=90).job(), [progress])
        progress._bar.refresh()
    text = shown.getvalue()
    assert f"{result.spent.nfe}/90" in text
    assert "step 9 (noise 0.10)" in text
    assert f"{max(point.reward for point in result.trace):.4g}" in text


@pytest.mark.parametrize(("show", "terminal"), [(False, True), (True, False)])
def test_progress_is_silent_where_not_wanted(show: bool, terminal: bool) -> None:
    shown = io.StringIO()
    with LiveProgress(show, Console(file=shown, force_terminal=terminal)) as progress:
        run(Plan(PROMPT, nfe=90).job(), [progress])
    assert shown.getvalue() == ""


def test_progress_of_a_search_whose_steps_are_its_own() -> None:
    shown = io.StringIO()
    with LiveProgress(console=Console(file=shown, force_terminal=True, width=120)) as progress:
        run(
            Plan(PROMPT, method="paths(start=0.5, forward=0.3, back=0.5, streams=1, copies=2)", nfe=90).job(),
            [progress],
        )
        progress._bar.refresh()
    assert "step 3 (noise 0.03)" in shown.getvalue()


MINE = """
from rollflow import RewardModel

class Darkness(RewardModel):
    name = "darkness"
    description = "minus the mean of all pixels"

    def score(self, samples, prompts):
        return -samples.flatten(1).mean(1)
"""


def test_a_module_of_the_working_directory(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "of_this_folder.py").write_text(MINE)
    assert main(["generate", PROMPT, "--reward", "of_this_folder:Darkness", "--nfe", "90", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reward_name"] == "darkness"


def test_file_names_are_the_documented_ones() -> None:
    films = {outputs.FILM, outputs.BASELINE_FILM}
    assert {*outputs.PICTURES, outputs.RESULT} == EVERY | films


class Counted(Redness):
    """A reward that reads what is asked for: the redness of as many squares."""

    name = "counted"
    structured = True

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        return super().score(samples, prompts) * torch.tensor([asked(prompt).get("square", 0) for prompt in prompts])


def test_held_out_rewards_of_ones_own(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judged = ["--reward", "judge", "--held-out", "caption", "--held-out-path"]
    arguments = ["generate", PROMPT, "--method", "rbf", "--nfe", "80", *judged]
    assert main(arguments) == 0
    out, _ = capsys.readouterr()
    content = read(folder / "rollflow-out")
    assert list(content["held_out"]) == ["caption"]
    assert f"held out  caption {content['held_out']['caption']:.4g}" in out
    assert [list(told) for _, _, told in content["path"]] == [["caption"]] * 10
    assert main(["generate", PROMPT, "--held-out", "judge", "--held-out", "judge"]) == 2
    assert "held-out reward names must be distinct; got 'judge' twice" in refused(capsys)
    assert main(["generate", PROMPT, "--held-out", "jugde"]) == 2
    assert "did you mean 'judge'?" in refused(capsys)


def test_a_mixture_by_name(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its parts are reported beside it, before and after."""
    monkeypatch.setitem(REWARDS, "sum", WeightedSum)
    mixture = "sum(parts=caption;judge, weights=1;0.5)"
    assert main(["generate", PROMPT, "--nfe", "80", "--reward", mixture, "--compare"]) == 0
    out, _ = capsys.readouterr()
    content = read(folder / "rollflow-out")
    parts, before = content["parts"], content["baseline"]["parts"]
    assert content["reward"] == pytest.approx(parts["caption"] + 0.5 * parts["judge"])
    assert f"part      judge {before['judge']:.4g} -> {parts['judge']:.4g}" in out
    assert content["held_out"] == {}


def test_what_is_asked_for_is_shown_before_the_run(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(REWARDS, "counted", Counted)
    run_of = ["generate", "three red squares", "--nfe", "80", "--reward", "counted"]
    assert main(run_of) == 0
    expected = "the prompt asks for red square=3 (read from its words; override with --ask THING=COUNT)\n"
    assert capsys.readouterr().err == expected
    assert read(folder / "rollflow-out")["reward"] == 0
    assert main([*run_of, "--ask", "squares=2"]) == 0
    assert capsys.readouterr().err == "the prompt asks for square=2 (as given)\n"
    content = read(folder / "rollflow-out")
    assert content["ask"] == {"square": 2}
    assert content["prompt"] == "three red squares"
    assert content["reward"] != 0
    assert main([*run_of, "--ask", "squares"]) == 2
    assert "expected THING=COUNT, such as airplanes=6, not 'squares'" in refused(capsys)


def test_a_reward_that_goes_away_leaves_the_best_so_far(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line that says why and how to go on; going on ends as a run that was never stopped."""
    arguments = ["generate", PROMPT, "--method", "svdd", "--nfe", "60", "--quiet"]
    assert main([*arguments, "--out", "whole"]) == 0
    calls, score = [0], Redness.score

    def sometimes(self: Redness, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        calls[0] += 1
        if calls[0] == 4:
            raise RewardUnavailable("no answer from http://127.0.0.1:1 in 5 s")
        return score(self, samples, prompts)

    monkeypatch.setattr(Redness, "score", sometimes)
    assert main(arguments) == 1
    message = (
        "no answer from http://127.0.0.1:1 in 5 s; the best sample so far is in 'rollflow-out'; continue with --resume"
    )
    assert capsys.readouterr().err == f"error: {message}\n"
    assert read(folder / "rollflow-out")["cause"] == "no answer from http://127.0.0.1:1 in 5 s"
    assert main([*arguments, "--resume"]) == 0
    resumed, whole = read(folder / "rollflow-out"), read(folder / "whole")
    assert (resumed["reward"], resumed["nfe_used"]) == (whole["reward"], whole["nfe_used"])
    assert (folder / "rollflow-out/image.png").read_bytes() == (folder / "whole/image.png").read_bytes()


@pytest.mark.slow
def test_what_is_found_is_kept_whatever_happens_to_the_path(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A held-out reward that goes away is told, and the user may stop while the path is scored."""
    calls, score = [0], Redness.score

    def sometimes(self: Redness, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        calls[0] += 1
        if calls[0] > 1:
            raise RewardUnavailable("gone")
        return score(self, samples, prompts)

    judged = ["--reward", "judge", "--held-out", "caption", "--held-out-path"]
    arguments = ["generate", PROMPT, "--method", "rbf", "--nfe", "80", *judged]
    monkeypatch.setattr(Redness, "score", sometimes)
    assert main(arguments) == 0
    content = read(folder / "rollflow-out")
    assert [told["caption"] for _, _, told in content["path"]] == [None] * 9 + [content["held_out"]["caption"]]
    assert main([*arguments, "--out", "again"]) == 0
    assert "missing   caption: RewardUnavailable: gone" in capsys.readouterr().out

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rollflow.output.runs.along", stopped)
    assert main([*arguments, "--out", "stopped"]) == 130
    assert read(folder / "stopped")["nfe_used"] == content["nfe_used"]
    assert (folder / "stopped/image.png").exists()


def test_going_on_while_the_reward_is_still_away(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best so far is written again, without a path that nothing is known of."""
    arguments = ["generate", PROMPT, "--method", "svdd", "--nfe", "60", "--quiet", "--held-out-path"]
    calls, score = [0], Redness.score

    def sometimes(self: Redness, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        calls[0] += 1
        if calls[0] > 3:
            raise RewardUnavailable("gone")
        return score(self, samples, prompts)

    monkeypatch.setattr(Redness, "score", sometimes)
    assert main(arguments) == 1
    first = read(folder / "rollflow-out")
    assert main([*arguments, "--resume"]) == 1
    assert read(folder / "rollflow-out")["reward"] == first["reward"]
    assert capsys.readouterr().err.count("error: gone; the best sample so far is in 'rollflow-out'") == 2


def user_files(folder: Path) -> dict[str, bytes]:
    names = ("baseline.png", "film.webp", "baseline.webp", "notes.md", ".hidden", "x.part", "checkpoint.pt.bak")
    for name in names:
        (folder / name).write_bytes(b"precious " + name.encode())
    return {name: (folder / name).read_bytes() for name in names}


def test_files_of_the_user_stay_where_they_are(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = user_files(folder)
    for more in ([], ["--seed", "2"], ["--resume"]):
        assert main(["generate", PROMPT, "--nfe", "90", "-q", "--out", ".", *more]) == (
            1 if more == ["--resume"] else 0
        )
        assert {name: (folder / name).read_bytes() for name in mine} == mine
    assert main(["generate", PROMPT, "--nfe", "90", "-q", "--out", ".", "--compare"]) == 2
    assert "'.' holds baseline.png, which rollflow did not write" in capsys.readouterr().err
    assert {name: (folder / name).read_bytes() for name in mine} == mine


@pytest.mark.parametrize("name", ["image.png", "result.json", "trace.png", "filmstrip.png", "checkpoint.pt"])
@pytest.mark.slow
def test_a_file_of_the_user_is_not_replaced(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is loaded either; nor is one that has taken the place of rollflow's own."""
    (folder / name).write_text("precious")
    assert main(["generate", PROMPT, "--nfe", "90", "--out", "."]) == 2
    assert f"'.' holds {name}, which rollflow did not write" in refused(capsys)
    assert (loads(), contents(folder)) == (0, {name: b"precious"})
    if name != "checkpoint.pt":
        assert main(["generate", PROMPT, "--nfe", "90", "-q", "--out", "own"]) == 0
        (folder / "own" / name).write_text("precious")
        assert main(["generate", PROMPT, "--nfe", "90", "--seed", "1", "--out", "own"]) == 2
        line = refused(capsys)
        assert line.startswith("error: 'own' holds ")
        assert name in line.partition(", which rollflow did not write, or which was changed since")[0]
        assert (folder / "own" / name).read_text() == "precious"


def test_the_checkpoint_of_a_stopped_run_is_not_taken_from_it(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["generate", PROMPT, "--method", "rbf", "--nfe", "90", "-q"]
    monkeypatch.setattr(TinyModel, "interrupt_at", 9)
    assert main(command) == 130
    monkeypatch.setattr(TinyModel, "interrupt_at", None)
    capsys.readouterr()
    before, loaded = contents(folder / "rollflow-out"), loads()
    assert "checkpoint.pt" in before
    assert main([*command, "--seed", "3", "--resume"]) == 1
    assert "belongs to another job: seed was 0, is 3" in refused(capsys)
    for others, code, told in (
        (["--seed", "3"], 2, "another run"),
        ([], 2, "a stopped run"),
        (["--seed", "3", "--resume"], 1, "another job"),
    ):
        assert main([*command, *others, "--dry-run"]) in (code, 2)
        assert told in refused(capsys)
    assert main([*command, "--resume", "--dry-run"]) == 0
    assert (contents(folder / "rollflow-out"), loads()) == (before, loaded)
    capsys.readouterr()
    assert main([*command, "--seed", "3", "--nfe", "80"]) == 2
    assert "checkpoint of another run that was stopped (nfe was 90, is 80; seed was 0, is 3)" in refused(capsys)
    assert main(command) == 2
    assert "(model scenes-base, reward caption); continue it with --resume" in refused(capsys)
    assert contents(folder / "rollflow-out") == before
    assert main([*command, "--resume"]) == 0


@pytest.mark.slow
def test_what_is_replaced_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before, where it took long; nothing is said where the same run is repeated."""
    command = ["generate", PROMPT, "--method", "rbf", "--nfe", "90"]
    assert main(command) == 0
    assert main(command) == 0
    assert "replaced" not in capsys.readouterr().out
    assert main([*command, "--seed", "1"]) == 0
    assert f"replaced the result of another run ('{PROMPT}', rbf, seed 0)" in capsys.readouterr().out


def test_two_runs_do_not_share_a_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunFolder(folder / "rollflow-out"):
        assert main(["generate", PROMPT, "--nfe", "90"]) == 1
    assert "another run is writing to 'rollflow-out'; wait for it, or choose another folder" in refused(capsys)
    assert loads() == 0


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
@pytest.mark.slow
def test_a_result_that_cannot_be_written_is_not_lost(
    number: int, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checkpoint holds it; where there is none either, it is kept elsewhere, and that is said."""
    command = ["generate", PROMPT, "--nfe", "90", "-q", "--out"]
    assert main([*command, "whole"]) == 0
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    write, no_disk = atomic.write, OSError(number, os.strerror(number))

    def failing(path: Path, files: dict[str, bytes]) -> None:
        if path.name == "out" and (checkpoints or "checkpoint.pt" not in files):
            raise no_disk
        write(path, files)

    for module in ("rollflow.files.run_folder", "rollflow.engine.checkpoint.file"):
        monkeypatch.setattr(f"{module}.write", failing)
    checkpoints = False
    assert main([*command, "out"]) == 1
    assert "nothing is lost: fix this, then run the same command with --resume" in refused(capsys)
    assert list(contents(folder / "out")) == ["checkpoint.pt"]
    (folder / "out/checkpoint.pt").unlink()
    checkpoints = True
    assert main([*command, "out"]) == 1
    line = refused(capsys)
    [spare] = folder.glob("rollflow-result-*")
    assert f"it is in '{spare}' instead" in line
    assert (spare / "image.png").read_bytes() == (folder / "whole/image.png").read_bytes()
    assert contents(folder / "out") == {}


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_the_version(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([flag]) == 0
    assert capsys.readouterr() == (f"rollflow {rollflow.__version__}\n", "")


def test_generate_is_first_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    commands = capsys.readouterr().out.partition("Commands:\n")[2].split("\n")
    assert commands[0].split()[0] == "generate"
