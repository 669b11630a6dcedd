"""Wrong command lines end in one line on stderr with exit code 1 or 2, and exceptions of plug-ins do too."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from rollflow.cli import main

PLUGINS = '''
from rollflow.rewards import RewardModel
class Mean(RewardModel):
    """The mean."""
    name, description = "mean", "the mean"
    def score(self, samples, prompts): return samples.mean((1, 2, 3))
class Init(Mean):
    def __init__(self): raise KeyError("no")
class Large(Init):
    name, loads_later = "large", False
class Exits(Mean):
    def __init__(self): raise SystemExit(0)
class Late(Mean):
    def score(self, samples, prompts): raise SystemExit(0)
class Load(Mean):
    def load(self): raise AttributeError("deep")
class Words(Mean):
    def score(self, samples, prompts): return "abc"
class Raises(Mean):
    def score(self, samples, prompts): raise KeyError("boom")
class Deep(Mean):
    def __init__(self): self.__init__()
class Odd(Mean):
    def __init__(self, size: "Undefined" = 3): pass
class NoText(Mean):
    def score(self, samples, prompts): raise type("Odd", (Exception,), {"__str__": lambda self: 1 / 0})
class Ends(Mean):
    def score(self, samples, prompts): raise BaseException("all")
class Long(Mean):
    def score(self, samples, prompts): raise KeyError("x " * 10**5)
class Batch(Mean):
    batch_size = 0
class Range(Mean):
    bounds = (1, 0)
class Held(Mean):
    held_out = "judge"
class Place(Mean):
    device = "cuda:9"
class Blank(Mean):
    name = " "
class Other(Mean):
    def __new__(cls): return 3
class Unfit(Mean):
    def unfit(self, shape): raise KeyError("u")
class Reads(Mean):
    def check(self, prompt): raise KeyError("c")
class Who(Mean):
    @property
    def identity(self): raise KeyError("who")
class NoName(RewardModel):
    def score(self, samples, prompts): return samples.mean((1, 2, 3))
class Abstract(RewardModel):
    name, description = "abstract", ""
def function(): ...
import torch
from dataclasses import dataclass
from rollflow.models import FlowModel
from rollflow.search import BestOfN
class Model(FlowModel):
    name, description, shape = "model", "a model", (3, 4, 4)
    def encode(self, prompt): return None
    def velocity(self, x, t, conditions): return x
class Shape(Model):
    shape = (3, 0)
class Type(Model):
    dtype = torch.int64
class Rows(Model):
    rows_per_nfe = "2"
class Path(Model):
    interpolant = "linear"
@dataclass(frozen=True)
class Cost(BestOfN):
    def cost(self, dynamics, nfe): return None
@dataclass(frozen=True)
class Costly(BestOfN):
    def cost(self, dynamics, nfe): raise KeyError("dear")
@dataclass(frozen=True)
class Shares(BestOfN):
    def shares(self, dynamics, nfe): return None
@dataclass(frozen=True)
class Plain(BestOfN):
    def population(self, walk, resume=None): return 3
@dataclass(frozen=True)
class Yields(BestOfN):
    def population(self, walk, resume=None): yield 3
@dataclass(frozen=True)
class Returns(BestOfN):
    def population(self, walk, resume=None):
        return
        yield
'''


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with modules of rewards, some of which cannot be imported, and a picture."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    modules = {
        "wl_mine": PLUGINS,
        "wl_syntax": "def (:",
        "wl_exits": "raise SystemExit(0)",
        "wl_raises": "raise RuntimeError('boom at import')",
        "wl_lacks": "import not_there_at_all",
        "wl_ends": "raise BaseException('at import')",
    }
    for name, text in modules.items():
        (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    yield tmp_path
    for name in modules:
        sys.modules.pop(name, None)


DRY = ["generate", "three cats", "--dry-run"]
LINES: list[tuple[list[str], str]] = [
    ([*DRY, "--steps", "9" * 26], "steps must be a whole number <= 100000"),
    ([*DRY, "--nfe", str(10**19), "--method", "smc"], "nfe must be a whole number <= 10000000"),
    (["generate", "three cats", "--nfe", str(10**9)], "nfe must be a whole number <= 10000000"),
    *(
        ([*DRY, option, path], "is not a valid name; name a class of your own as module:attribute")
        for option in ("--method", "--kernel", "--grid", "--interpolant", "--guidance", "--lookahead", "--reward")
        for path in ("..:x", ":", "a..b:c")
    ),
    ([*DRY, "--reward", "sum(parts=" * 3000 + ")" * 3000], "nested more than 32 deep"),
    ([*DRY, "--reward", "sum(parts=caption"], "expected NAME"),
    ([*DRY, "--method", "rbf(initial=1, initial=2)"], "initial of method 'rbf' is set twice"),
    ([*DRY, "--method", "rbf(initial=1)", "--set", "initial=2"], "initial of method 'rbf' is set twice"),
    ([*DRY, "--set", "initial=1", "--set", "initial=2"], "--set gives initial twice"),
    ([*DRY, "--reward", "wl_syntax:X"], "reward 'wl_syntax:X' cannot be loaded: SyntaxError"),
    ([*DRY, "--reward", "wl_exits:X"], "it called exit(0)"),
    ([*DRY, "--reward", "wl_raises:X"], "RuntimeError: boom at import"),
    ([*DRY, "--reward", "wl_lacks:X"], "No module named 'not_there_at_all'"),
    ([*DRY, "--reward", "wl_mine:NoName"], "has no name"),
    ([*DRY, "--reward", "wl_mine:Abstract"], "is an abstract class; implement score"),
    ([*DRY, "--reward", "wl_mine:function"], "expected a function of two, f(images, prompts)"),
    ([*DRY, "--reward", "wl_mine:Odd"], "the settings of Odd cannot be read"),
    ([*DRY, "--held-out", "caption(x=1)"], "unknown setting of reward caption 'x'"),
    ([*DRY, "--reward", "clipscore(device=nonsense)"], "device 'nonsense' is not available; choose one of: auto"),
    ([*DRY, "--reward", "clipscore(device=cuda:99)"], "device 'cuda:99' is not available"),
    ([*DRY, "--held-out", "clipscore(device=meta)"], "device 'meta' is not available"),
    ([*DRY, "--reward", "style"], "style(reference=PATH)"),
    ([*DRY, "--reward", "vlm-judge"], "needs the name of a model"),
    ([*DRY, "--method", "smc", "--set", "threshold=nan"], "threshold=nan cannot be read"),
    ([*DRY, "--out", "file"], "'file' is a file"),
    ([*DRY, "--out", "file/below"], "is a file; choose another"),
    (["generate", "a unicorn", "--dry-run"], "'unicorn' is not in the vocabulary"),
    (["generate", "\udc80", "--dry-run"], "the prompt must be a string"),
    ([*DRY, "--device", "cpu"], "--device is only for diffusers pipelines"),
    ([*DRY, "--pipeline-arg", "height=3"], "--pipeline-arg is only for diffusers pipelines"),
    ([*DRY, "--reward", "wl_mine:Init"], "reward 'wl_mine:Init' cannot be created: KeyError: 'no'"),
    ([*DRY, "--held-out", "wl_mine:Exits"], "it called exit(0)"),
    ([*DRY, "--reward", "sum(parts=caption;wl_mine:Deep, weights=1;1)"], "RecursionError"),
    (["generate", "three cats", "--reward", "wl_mine:Init"], "reward 'wl_mine:Init' cannot be created: KeyError: 'no'"),
    (["generate", "three cats", "--reward", "wl_mine:Large"], "reward 'large' cannot be loaded: KeyError: 'no'"),
    (["bench", "run", "--preset", "init", "--quick", "--dry-run", "--out", "x", "--reward", "wl_mine:Init"], "'no'"),
    (["generate", "three cats", "--reward", "wl_mine:Exits"], "it called exit(0)"),
    (["generate", "three cats", "--reward", "wl_mine:Deep"], "RecursionError"),
    (["generate", "three cats", "--reward", "wl_mine:Load"], "AttributeError: deep"),
    (["score", "clipscore(device=nonsense)", "a.png", "--prompt", "x"], "device 'nonsense' is not available"),
    (["score", "aesthetic", "a.png", "--prompt", "x", "--device", "nosuch"], "device 'nosuch' is not available"),
    (["score", "count", "a.png", "--prompt", "a unicorn"], "'unicorn' is not in the vocabulary"),
    *(
        (["score", f"wl_mine:{name}", "a.png", "--prompt", "x"], told)
        for name, told in (
            ("Init", "reward 'wl_mine:Init' cannot be created: KeyError: 'no'"),
            ("Exits", "it called exit(0)"),
            ("Late", "it called exit(0)"),
            ("Load", "AttributeError: deep"),
            ("Words", "reward 'mean'"),
            ("Raises", "boom"),
            ("NoName", "has no name"),
        )
    ),
    ([*DRY, "--reward", "wl_ends:X"], "reward 'wl_ends:X' cannot be loaded: BaseException: at import"),
    *(
        ([*DRY, "--reward", f"wl_mine:{name}"], told)
        for name, told in (
            ("Batch", "reward 'mean': batch_size must be a whole number >= 1, not 0"),
            ("Range", "bounds must be a pair of numbers, the lower first, or None, not (1, 0)"),
            ("Held", "held_out must be a tuple of texts, not 'judge'"),
            ("Place", "device must be a torch.device or None, not 'cuda:9'"),
            ("Blank", "name of the reward Blank is empty"),
        )
    ),
    *(
        ([*DRY, "--model", f"wl_mine:{name}"], told)
        for name, told in (
            ("Shape", "model 'model': shape[1] must be a whole number >= 1, not 0"),
            ("Type", "dtype must be a floating-point torch.dtype"),
            ("Rows", "rows_per_nfe must be a whole number >= 1, not '2'"),
            ("Path", "interpolant must be an Interpolant, not 'linear'"),
        )
    ),
    ([*DRY, "--method", "wl_mine:Cost"], "the cost of method 'bon' must be a Cost, not None"),
    ([*DRY, "--method", "wl_mine:Costly"], "the cost of method 'bon' cannot be determined: KeyError: 'dear'"),
    *(
        (
            ["generate", "x", "--nfe", "20", "--model", "wl_mine:Model", "--reward", "wl_mine:Mean", "--method", name],
            told,
        )
        for name, told in (
            ("wl_mine:Shares", "shares of method 'bon' must be a list of whole numbers, not None"),
            ("wl_mine:Plain", "population of method 'bon' must be a generator of requests, not 3"),
            ("wl_mine:Yields", "which is not a request; use 'yield from'"),
            ("wl_mine:Returns", "what method 'bon' returns must be a Finished, not None"),
        )
    ),
    (["generate", "three cats", "--reward", "wl_mine:Other"], "creates 3; expected an object of its class"),
    (
        ["generate", "three cats", "--reward", "wl_mine:Who"],
        "the identity of the model or the reward cannot be",
    ),
    (["score", "wl_mine:NoText", "a.png", "--prompt", "x"], "reward 'mean' failed: Odd"),
    (["score", "wl_mine:Ends", "a.png", "--prompt", "x"], "reward 'mean' failed: BaseException: all"),
    (["score", "wl_mine:Long", "a.png", "--prompt", "x"], " [...] "),
    (["score", "wl_mine:Other", "a.png", "--prompt", "x"], "creates 3; expected an object of its class"),
    (["score", "wl_mine:Unfit", "a.png", "--prompt", "x"], "reward 'mean' failed: KeyError: 'u'"),
    (["score", "wl_mine:Reads", "a.png", "--prompt", "x"], "reward 'mean' failed: KeyError: 'c'"),
    ([*DRY, "--out", "loop"], "'loop' is a link that leads nowhere"),
    (["generate", "three cats", "--out", "loop"], "'loop'"),
    (["bench", "run", "--preset", "searches", "--dry-run", "--out", "loop"], "'loop'"),
    (["report", "loop"], "'loop'"),
    ([*DRY, "--reward", "remote(url=http://127.0.0.1:99999)"], "must be from 0 to 65535"),
    ([*DRY, "--resume"], "the folder holds no stopped run"),
    (["serve"], "unknown command 'serve'; did you mean 'serve-reward'? known: bench, compare"),
    (["bench", "rnu"], "unknown command 'rnu'; did you mean 'run'?"),
    (["serve-reward", "wl_raises:X", "--port", "0"], "boom at import"),
    (["serve-reward", "wl_mine:Init", "--port", "0"], "KeyError: 'no'"),
]


@pytest.mark.parametrize(("line", "told"), LINES, ids=[" ".join(line)[:60] for line, _ in LINES])
@pytest.mark.slow
def test_a_wrong_line_is_one_line(line: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(line)
    out, err = capsys.readouterr()
    [said] = err.splitlines()
    assert code in (1, 2)
    assert said.startswith("error: ")
    assert told in said
    assert "unexpected" not in said
    assert len(said) < 2100
    assert not out


def test_a_right_line_with_a_plug_in_still_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "wl_mine:Mean", "a.png", "--prompt", "x"]) == 0
    assert "a.png" in capsys.readouterr().out
    assert main([*DRY, "--reward", "wl_mine:Mean", "--out", "new/below"]) == 0
    assert not Path("new").exists()
    assert main([*DRY, "--reward", "wl_mine:Large"]) == 0, "what says that it loads is not made"


@pytest.mark.parametrize("before", [True, False])
def test_debug_shows_the_traceback_and_the_line(before: bool, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["score", "wl_mine:Raises", "a.png", "--prompt", "x"]
    assert main(["--debug", *line] if before else [*line, "--debug"]) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "raise KeyError" in err
    assert err.splitlines()[-1].startswith("error: ")
    assert main(line) == 1
    assert "Traceback" not in capsys.readouterr().err


def test_debug_by_the_environment(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("ROLLFLOW_DEBUG", "1")
    assert main([*DRY, "--steps", "0"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_what_escapes_is_reported_as_a_bug(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(*arguments: object, **settings: object) -> None:
        raise KeyError("x")

    monkeypatch.setattr("rollflow.cli.settings.chosen", broken)
    assert main(DRY) == 1
    [said] = capsys.readouterr().err.splitlines()
    assert said.startswith("error: unexpected KeyError: 'x' (a bug in rollflow or in a plug-in; run again with --debug")
