"""``result.json`` holds all that a run was asked for, and is enough to make its sample again, to the last bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from support.tiny import Redness, TinyModel, registered  # noqa: F401
from torch import Tensor

from rollflow.api import Plan, generate
from rollflow.api.earlier import read_run
from rollflow.cli import main
from rollflow.dynamics.grids import Matched, Shifted
from rollflow.dynamics.guidance import DPS
from rollflow.dynamics.interpolants import VP, Cosine
from rollflow.dynamics.kernels import DDIM
from rollflow.dynamics.lookahead import ODELookahead
from rollflow.engine import Interrupted, JobRecord, Result
from rollflow.errors import BadCheckpoint, BadSetting, RollflowError, RollflowWarning
from rollflow.files.run_folder import RunFolder
from rollflow.models import PipelineSource
from rollflow.options import options_of
from rollflow.output.runs import run
from rollflow.prompts import Prompt
from rollflow.rewards import REWARDS
from rollflow.rewards.wrappers.augmented import Augmented
from rollflow.search import SVDD

PROMPT = "a red square"


class Smooth(Redness):
    """Redness, with its gradient."""

    name = "smooth"
    differentiable = True
    held_out: ClassVar[tuple[str, ...]] = ()


class UsersOwn(Redness):
    """A reward of the user's, whose strength no name says."""

    name = "own"

    def __init__(self, strength: Tensor) -> None:
        self.strength = strength


NON_DEFAULT: dict[str, Any] = {
    "model": "scenes-turbo",
    "method": "svdd(streams=3)",
    "as_published": True,
    "reward": "smooth",
    "surrogate": "augmented(reward=smooth)",
    "held_out": ["judge"],
    "choose_by": "caption",
    "shortlist": 3,
    "nfe": 97,
    "seed": 7,
    "max_rows": 5,
    "max_grad_rows": 3,
    "interpolant": "cosine",
    "kernel": "ddim(eta=0.5)",
    "steps": 4,
    "grid": "shifted(shift=2.0)",
    "lookahead": "ode(steps=3)",
    "guidance": "dps(scale=0.25)",
    "finish": False,
    "best_seen": True,
}
"""Another value than the default for every option."""

DEFAULTS = {name: field.default for name, (field, _) in options_of().items()}


@pytest.fixture(autouse=True)
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and a reward that has a gradient."""
    request.getfixturevalue("registered")  # which takes all others away
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(REWARDS, "smooth", Smooth)
    monkeypatch.setitem(REWARDS, "augmented", Augmented)
    return tmp_path


def read(folder: Path | str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((Path(folder) / "result.json").read_text())
    return content


def write(content: dict[str, Any], **plan: Any) -> Path:
    """A ``result.json`` that says something else."""
    path = Path("changed.json")
    path.write_text(json.dumps(content | {"plan": content["plan"] | plan}))
    return path


def flags(options: dict[str, Any]) -> list[str]:
    """Options as on the command line."""
    line: list[str] = []
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            line.append(flag if value else f"--no-{flag[2:]}")
        else:
            line += [part for one in (value if isinstance(value, list) else [value]) for part in (flag, str(one))]
    return line


def test_no_option_is_left_at_its_default() -> None:
    """Else the next tests would not see that one is lost."""
    assert list(NON_DEFAULT) == list(DEFAULTS)
    assert all(NON_DEFAULT[name] != DEFAULTS[name] for name in DEFAULTS)


@pytest.mark.parametrize(
    "options",
    [{"method": "rbf", "nfe": 90}, NON_DEFAULT, {**NON_DEFAULT, "finish": True, "best_seen": False, "seed": 2}],
)
@pytest.mark.slow
def test_a_run_is_repeated_to_the_last_bit(options: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", PROMPT, *flags(options), "--out", "first"]) == 0
    capsys.readouterr()
    assert main(["generate", "--from", "first", "--out", "again"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("the sample is that of 'first/result.json', to the last bit\n")
    assert err == ""
    first, again = read("first"), read("again")
    assert (
        first["plan"]
        == {"prompt": PROMPT, **{name: field.default for name, (field, _) in options_of().items()}} | options
    )
    unlike = ("seconds", "files")
    assert {k: v for k, v in first.items() if k not in unlike} == {k: v for k, v in again.items() if k not in unlike}
    assert Path("first/image.png").read_bytes() == Path("again/image.png").read_bytes()


@pytest.mark.slow
def test_what_auto_chose_is_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    """The record holds the search with every choice made, so that later releases need not choose the same."""
    assert main(["generate", PROMPT, "--reward", "judge", "--nfe", "20", "--out", "first"]) == 0
    assert capsys.readouterr().out.startswith("auto: beam at 5 noise levels (1, 0.8, 0.6, 0.4, 0.15), 2 parents")
    assert read("first")["plan"]["method"] == "beam(levels=1.0;0.8;0.6;0.4;0.15)"
    assert main(["generate", "--from", "first", "--out", "again"]) == 0
    assert "the sample is that of 'first/result.json', to the last bit\n" in capsys.readouterr().out
    assert Path("first/image.png").read_bytes() == Path("again/image.png").read_bytes()


@pytest.mark.slow
def test_python_and_the_command_line_are_one() -> None:
    """Objects are written as the texts that make them, and the file of either repeats the other."""
    made = Plan(
        Prompt(PROMPT, {"square": 1}),
        **NON_DEFAULT
        | {
            "method": SVDD(3),
            "interpolant": Cosine(),
            "kernel": DDIM(0.5),
            "grid": Shifted(2.0),
            "lookahead": ODELookahead(3),
            "guidance": DPS(0.25),
        },
    )
    prompt = {"text": PROMPT, "ask": {"square": 1}}
    assert made.to_json() == {"prompt": prompt, **NON_DEFAULT}
    assert Plan.from_json(made.to_json()).to_json() == made.to_json()
    result = made.run("python")
    assert main(["generate", "--from", "python/result.json", "--out", "again", "-q"]) == 0
    assert read("again")["sha256"] == read("python")["sha256"] == result.record().sha256
    assert {path.name for path in Path("python").iterdir()} == {path.name for path in Path("again").iterdir()}


@pytest.mark.parametrize("model", ["scenes-base", "scenes-turbo"])
@pytest.mark.slow
def test_a_plain_sample_is_repeated_by_its_record(model: str) -> None:
    """The plan of a plain sample is the whole of what was run, guidance and look-ahead of the search left out."""
    options = NON_DEFAULT | {"model": model, "held_out": []}  # without a judge that warns
    plan = Plan(PROMPT, **options)
    plan.run("out", compare=True)
    content = read("out")["baseline"]["plan"]
    run_again = Plan.from_json(content)
    changed = {
        **{"method": "bon", "nfe": 4, "interpolant": "linear", "kernel": "ode", "grid": None},
        **{"lookahead": "tweedie", "guidance": None, "finish": None, "as_published": False, "best_seen": False},
        "choose_by": None,
    }
    assert content == {"prompt": PROMPT, **options, **changed}
    result, plain = run_again.run(), run(plan.baseline())
    assert torch.equal(result.sample, plain.sample)
    assert plain.record().plan == content
    assert run(plan.baseline(3)).record().plan == {**content, "seed": 3}


@pytest.mark.slow
def test_a_result_saves_itself() -> None:
    """Without plots and steps, which take an observer; ``--from`` repeats it all the same."""
    result = generate(PROMPT, nfe=90, seed=3, grid=Matched(VP()))
    result.save("saved")
    assert {path.name for path in Path("saved").iterdir()} == {"image.png", "result.json"}
    content = read("saved")
    assert content["plan"]["grid"] == "matched"
    assert content["origin"] == {"population": result.origin.population, "row": result.origin.row}
    assert JobRecord.from_json(content).spent == result.spent
    assert main(["generate", "--from", "saved", "--out", "again", "-q"]) == 0
    again = read("again")
    assert again["sha256"] == content["sha256"] == result.record().sha256
    assert again.keys() - content.keys() == {"quota"}
    result.save("again")  # the plots of the earlier run would be taken for its own
    assert {path.name for path in Path("again").iterdir()} == {"image.png", "result.json"}


def test_a_result_does_not_replace_files_of_the_user() -> None:
    result = generate(PROMPT, nfe=90)
    Path("mine").mkdir()
    Path("mine/image.png").write_text("precious")
    with pytest.raises(BadSetting, match=r"'mine' holds image\.png, which rollflow did not write"):
        result.save("mine")
    assert [path.read_text() for path in Path("mine").iterdir()] == ["precious"]
    with RunFolder(Path("busy")), pytest.raises(RollflowError, match="another run is writing to 'busy'"):
        result.save("busy")


@pytest.mark.slow
def test_options_beside_from_replace_its_own() -> None:
    assert main(["generate", PROMPT, *flags(NON_DEFAULT), "--ask", "square=1", "--out", "first", "-q"]) == 0
    more = ["--seed", "1", "--kernel", "ode", "--set", "streams=2", "--set", "guidance.scale=0.5"]
    assert main(["generate", "--from", "first", *more, "--out", "second", "-q"]) == 0
    expected = {"seed": 1, "kernel": "ode", "method": "svdd", "guidance": "dps(scale=0.5)"}
    prompt = {"text": PROMPT, "ask": {"square": 1}}
    assert read("second")["plan"] == {"prompt": prompt, **NON_DEFAULT, **expected}
    assert main(["generate", "a blue square", "--from", "first", "--out", "third", "-q"]) == 0
    assert read("third")["plan"]["prompt"] == "a blue square"
    assert main(["generate", "--from", "first", "--ask", "squares=2", "--out", "fourth", "-q"]) == 0
    assert read("fourth")["plan"]["prompt"] == {"text": PROMPT, "ask": {"square": 2}}


@pytest.mark.slow
def test_another_model_than_that_of_the_run_is_noticed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["generate", PROMPT, "--nfe", "90", "--out", "first", "-q"]) == 0
    monkeypatch.setattr(TinyModel, "identity", "scenes-base, trained on")
    monkeypatch.setattr(TinyModel, "decode", lambda self, x0: x0.clamp(0, 1))
    assert main(["generate", "--from", "first", "--out", "again", "-q"]) == 0
    assert capsys.readouterr().err == (
        "warning: the sample is not that of 'first/result.json': the model or one of the rewards has changed since\n"
    )


@pytest.mark.slow
def test_a_run_that_ended_early_is_repeated_to_its_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sample is then another, which is nobody's fault; so with a repetition that is stopped."""
    line = ["generate", PROMPT, "--nfe", "90"]
    assert main([*line, "--out", "whole", "-q"]) == 0
    with monkeypatch.context() as stopping:
        stopping.setattr(TinyModel, "interrupt_at", 9)
        assert main([*line, "--out", "first", "-q"]) == 130
        capsys.readouterr()
        assert main(["generate", "--from", "whole", "--out", "stopped", "-q"]) == 130
    assert capsys.readouterr().err == (
        "error: interrupted; the best sample so far is in 'stopped'; continue with --resume\n"
    )
    assert main(["generate", "--from", "first", "--out", "again"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("the run of 'first/result.json' ended early; this one came to its end")
    assert err == ""
    assert main(["generate", "--from", "first", "--resume", "--out", "first", "-q"]) == 0
    assert main(["generate", "--from", "whole", "--resume", "--out", "stopped"]) == 0
    assert capsys.readouterr().out.startswith("the sample is that of 'whole/result.json', to the last bit\n")
    assert {read(name)["sha256"] for name in ("again", "first", "stopped")} == {read("whole")["sha256"]}


def refused(capsys: pytest.CaptureFixture[str]) -> str:
    [line] = capsys.readouterr().err.splitlines()
    return line.removeprefix("error: ")


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"reward": "mine:Sharp"}, "would import 'mine:Sharp', which is not part of the library"),
        ({"surrogate": "mine:Sharp"}, "would import 'mine:Sharp', which is not part of the library"),
        ({"held_out": ["mine:Sharp"]}, "would import 'mine:Sharp', which is not part of the library"),
        ({"kernel": "mine:Mine"}, "would import 'mine:Mine', which is not part of the library"),
        ({"model": "/some/folder"}, "would load the model '/some/folder'"),
        ({"model": {"name": "owner/name"}}, "would load the model {'name': 'owner/name'}"),
        ({"reward": "vlm-judge(url=http://a)"}, "would use 'vlm-judge(url=http://a)'"),
        ({"reward": {"object": "mine.Sharp"}}, "was made with an object for reward (mine.Sharp)"),
        ({"flavour": "sweet"}, "sets the option 'flavour', which this release of rollflow does not have"),
        ({"reward": {"name": "caption"}}, "is malformed: reward is {'name': 'caption'}"),
        ({"prompt": {"text": "x"}}, "is malformed: prompt is {'text': 'x'}"),
        ({"model": None}, "model must be a name or a pipeline, not None"),
        ({"nfe": "many"}, "nfe must be a whole number"),
        ({"steps": 10**9}, "steps must be a whole number"),
    ],
)
@pytest.mark.slow
def test_a_file_of_anyones_is_not_trusted(
    plan: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rollflow.rewards.judges.vlm_judge import VLMJudge

    monkeypatch.setitem(REWARDS, "vlm-judge", VLMJudge)
    Path("mine.py").write_text("raise SystemExit('imported')")
    assert main(["generate", PROMPT, "--nfe", "90", "--out", "first", "-q"]) == 0
    loads = TinyModel.loads
    path = write(read("first"), **plan)
    assert main(["generate", "--from", str(path), "--out", "again"]) in (1, 2)
    assert message in refused(capsys)
    assert (TinyModel.loads, Path("again").exists()) == (loads, False)


@pytest.mark.parametrize("model", [None, 1, False, [], ["caption"]])
def test_a_model_of_another_type_is_refused_though_trusted(model: object, capsys: pytest.CaptureFixture[str]) -> None:
    generate(PROMPT, nfe=90).save("first")
    path = write(read("first"), model=model)
    assert main(["generate", "--from", str(path), "--trust", "--out", "again"]) == 2
    assert refused(capsys).startswith("model must be a name or a pipeline, not ")


@pytest.mark.slow
def test_trust_allows_a_module(capsys: pytest.CaptureFixture[str]) -> None:
    Path("repeat_mine.py").write_text("from support.tiny import Redness\nclass Mine(Redness):\n    name = 'mine'\n")
    line = ["generate", PROMPT, "--nfe", "90", "--reward", "repeat_mine:Mine", "--out", "first", "-q"]
    assert main(line) == 0
    assert main(["generate", "--from", "first", "--out", "again", "-q"]) == 2
    assert "if you trust its author, add --trust" in refused(capsys)
    assert main(["generate", "--from", "first", "--trust", "--out", "again", "-q"]) == 0
    assert read("again")["sha256"] == read("first")["sha256"]


@pytest.mark.slow
def test_an_object_of_a_class_of_ones_own_is_refused_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    """It is known only to the program that made it; a name given beside ``--from`` takes its place."""
    generate(PROMPT, nfe=90, reward=UsersOwn(torch.ones(2)), held_out=[]).save("first")
    assert read("first")["plan"]["reward"] == {"object": f"{__name__}.UsersOwn"}
    assert main(["generate", "--from", "first", "--out", "again"]) == 2
    assert "was made with an object for reward" in refused(capsys)
    assert main(["generate", "--from", "first", "--reward", "caption", "--out", "again", "-q"]) == 0


def test_how_a_pipeline_is_loaded_is_part_of_the_plan() -> None:
    source = PipelineSource(
        "owner/name", {"height": 64, "negative_prompt": "3", "image": object()}, device="cpu", revision="v2"
    )

    class Held(Plan):
        def __post_init__(self) -> None:
            """The hub is not asked."""

    content = json.loads(json.dumps(Held(PROMPT, model=source).to_json()))["model"]
    assert content == {
        "name": "owner/name",
        "device": "cpu",
        "revision": "v2",
        "arguments": {"height": "64", "negative_prompt": "'3'", "image": {"object": "object"}},
    }
    with pytest.raises(RollflowError, match="an argument 'image' of the pipeline"):
        Held.from_json({"prompt": PROMPT, "model": content}, trusted=True)
    del content["arguments"]["image"]
    made = Held.from_json({"prompt": PROMPT, "model": content}, trusted=True)
    assert made.model == PipelineSource(
        "owner/name", {"height": 64, "negative_prompt": "3"}, device="cpu", revision="v2"
    )
    with pytest.raises(RollflowError, match="would load the model"):
        Held.from_json({"prompt": PROMPT, "model": content})


def old(content: dict[str, Any]) -> dict[str, Any]:
    return {name: content[name] for name in ("prompt", "nfe_used", "reward", "files")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (old, "was written by an earlier release, which did not record all options"),
        (lambda content: content | {"version": 3}, "has version 3; this release of rollflow reads 1, 2"),
        (lambda content: content | {"plan": {}}, "does not contain the options of its run"),
        (lambda content: content | {"plan": [1]}, r"malformed: 'plan' is \[1\]"),
        (lambda content: content | {"threads": 10**6}, "threads must be a whole number"),
        (lambda content: {"a": 1}, "is not the result.json of a run"),
        (lambda content: [], "is not the result.json of a run"),
        (lambda content: content | {"trace": 3}, "is malformed"),
    ],
)
@pytest.mark.slow
def test_what_is_no_result_is_refused(change: Callable[[dict[str, Any]], Any], message: str) -> None:
    generate(PROMPT, nfe=90).save("first")
    Path("changed.json").write_text(json.dumps(change(read("first"))))
    with pytest.raises(RollflowError, match=message):
        read_run(Path("changed.json"))


def test_a_file_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--from", "nowhere"]) == 2
    assert refused(capsys) == "cannot read 'nowhere': No such file or directory; expected the result.json of a run"
    assert main(["generate"]) == 2
    assert refused(capsys) == "missing argument 'PROMPT'; give a prompt, or --from the result.json of a run"


@pytest.mark.slow
def test_a_plan_runs_in_a_folder_and_goes_on_there() -> None:
    """As on the command line: stopped it leaves its best and a checkpoint, resumed it ends at the same sample."""
    whole = Plan(PROMPT, nfe=90).run("whole", compare=True, held_out_path=True)
    assert isinstance(whole, Result)
    names = {"image.png", "baseline.png", "trace.png", "filmstrip.png", "result.json"}
    assert {path.name for path in Path("whole").iterdir()} == names
    model = TinyModel()
    model.interrupt_at = 9  # type: ignore[misc]
    with pytest.raises(Interrupted):
        Plan(PROMPT, nfe=90, model=model).run("out")
    assert read("out")["interrupted"]
    assert Path("out/checkpoint.pt").exists()
    with pytest.raises(BadSetting, match="holds the checkpoint of a stopped run with these options"):
        Plan(PROMPT, nfe=90).run("out")
    with pytest.raises(BadCheckpoint, match="belongs to another job: seed was 0, is 1"):
        Plan(PROMPT, nfe=90, seed=1).run("out", resume=True)
    resumed = Plan(PROMPT, nfe=90).run("out", resume=True)
    assert resumed is not None
    assert torch.equal(resumed.sample, whole.sample)
    assert not Path("out/checkpoint.pt").exists()
    before = Path("out/result.json").read_bytes()
    with pytest.warns(RollflowWarning, match="the run is already finished"):
        assert Plan(PROMPT, nfe=90).run("out", resume=True) is None
    assert Path("out/result.json").read_bytes() == before


def test_what_needs_a_folder_says_so() -> None:
    with pytest.raises(BadSetting, match="need a folder; give out"):
        Plan(PROMPT, nfe=90).run(resume=True)


def test_a_picture_in_place_of_a_result_is_refused_in_words(tmp_path: Path) -> None:
    picture = tmp_path / "image.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(RollflowError) as refused:
        read_run(picture)
    assert str(refused.value) == f"cannot read '{picture}': it is not text; expected the result.json of a run"


def test_a_velocity_without_a_shape_is_told_of_the_pair() -> None:
    with pytest.raises(BadSetting, match=r"model must be a name or a FlowModel or a Source or .* or a pair \(velocity"):
        Plan("x", model=lambda x, t: x)  # type: ignore[arg-type]
