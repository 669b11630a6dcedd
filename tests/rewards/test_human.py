"""A person with a fixed taste, at a terminal that is scripted, and in real searches."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.tiny import Redness, TinyModel
from torch import Tensor

from rollflow.engine import Checkpoint, Engine, Job, Observer, Result, Task
from rollflow.errors import RewardUnavailable, RollflowError
from rollflow.files.pictures import as_bytes
from rollflow.rewards import REWARDS, RewardModel
from rollflow.rewards.judges.human import Choose, Human, Rate
from rollflow.rewards.judges.terminal import LABEL, MARGIN, Asker, Terminal, contact_sheet
from rollflow.sampler import Sampler
from rollflow.search import BestOfN, Progress, RolloverBudget, Search


def reds(*levels: float) -> Tensor:
    pixels = torch.zeros(len(levels), 3, 8, 8)
    pixels[:, 0] = torch.tensor(levels).reshape(-1, 1, 1)
    return pixels


class Reddest(Asker):
    """Likes red, and gets up after so many questions."""

    def __init__(self, patience: int = 10_000) -> None:
        self.patience = patience
        self.seen: list[dict[int, Tensor]] = []

    def _look(self, candidates: Mapping[int, Tensor]) -> dict[int, float]:
        if len(self.seen) == self.patience:
            raise RewardUnavailable("nobody is there")
        self.seen.append(dict(candidates))
        return {number: float(as_bytes(sample)[0].double().mean()) for number, sample in candidates.items()}

    def choose(self, prompt: str, candidates: Mapping[int, Tensor]) -> int:
        likes = self._look(candidates)
        return max(likes, key=likes.__getitem__)

    def rate(self, prompt: str, candidates: Mapping[int, Tensor]) -> list[float]:
        return [like / 25.5 for like in self._look(candidates).values()]


class Content(Reddest):
    """Finds that nothing is better than what there is."""

    def choose(self, prompt: str, candidates: Mapping[int, Tensor]) -> int:
        self._look(candidates)
        return min(candidates)


class Watch(Observer):
    """Remembers where a job stood, and what its steps left over."""

    def __init__(self) -> None:
        self.checkpoint: Checkpoint | None = None
        self.carried: list[int] = []

    def checkpointed(self, job: Job, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint

    def saved(self, job: Job, population: int, progress: Progress) -> None:
        self.carried.append(progress.extra.carry)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "human")


def run(reward: RewardModel, search: Search, nfe: int, *watch: Observer, resume: Checkpoint | None = None) -> Result:
    sampler = Sampler(steps=4, finish=False)
    [result] = Engine(observers=watch).run(
        [Job(Task(TinyModel(), "red", reward), search, nfe, 5, sampler, resume=resume)]
    )
    return result


def test_numbers_of_choices_by_hand(folder: str) -> None:
    asker = Reddest()
    human = Human(folder=folder, asker=asker)
    assert human.score(reds(0.3), ["a"]).tolist() == [1]  # nothing to compare it with
    assert asker.seen == []
    assert human.score(reds(0.1), ["a"]).tolist() == [0]
    assert human.score(reds(0.2, 0.5, 0.4), ["a"] * 3).tolist() == [0, 2, 0]
    assert human.score(reds(0.6), ["a"]).tolist() == [3]
    assert [sorted(seen) for seen in asker.seen] == [[0, 1], [0, 1, 2, 3], [0, 1]]
    assert [as_bytes(seen[0])[0, 0, 0].item() for seen in asker.seen] == [76, 76, 128]


def test_prompts_are_judged_apart_and_pictures_once(folder: str) -> None:
    asker = Reddest()
    human = Human(folder=folder, asker=asker)
    assert human.score(reds(0.2, 0.9, 0.4, 0.1), ["a", "b", "a", "b"]).tolist() == [0, 1, 1, 0]
    assert human.score(reds(0.4, 0.2, 0.9), ["a", "a", "b"]).tolist() == [1, 0, 1]
    assert len(asker.seen) == 2
    assert human.score(reds(0.7, 0.7), ["a", "a"]).tolist() == [2, 2]
    assert sorted(asker.seen[2]) == [0, 1]
    assert human.score(reds(0.9), ["a"]).tolist() == [3]


def test_ratings(folder: str) -> None:
    human = Human("rate", folder, asker=Reddest())
    torch.testing.assert_close(human.score(reds(0.2, 0.8), ["a"] * 2), torch.tensor([2.0, 8.0]).double())
    assert human.score(reds(1.0, 0.2), ["a"] * 2).tolist() == [10, pytest.approx(2)]


def test_best_of_n_by_choice_is_that_of_the_measure(folder: str) -> None:
    """Of 20, shown in two batches, the best of the first taking part in the second."""
    asker = Reddest()
    result = run(Human(folder=folder, asker=asker), BestOfN(), 80)
    assert torch.equal(result.x0, run(Redness(), BestOfN(), 80).x0)
    assert [len(seen) for seen in asker.seen] == [12, 9]
    assert 0 in asker.seen[1]


def test_rbf_by_choice_stops_at_what_is_better_than_the_best_so_far(folder: str) -> None:
    asker, watch = Reddest(), Watch()
    result = run(Human(folder=folder, asker=asker), RolloverBudget(1, 4), 40, watch)
    assert max(watch.carried) > 0
    shown: list[Tensor] = []
    for candidates in asker.seen:
        if 0 in candidates:
            assert torch.equal(candidates[0], max(shown, key=lambda sample: float(sample[0].mean())))
        shown += [sample for number, sample in candidates.items() if number]
    assert result.reward > 1
    reddest = max(shown, key=lambda sample: float(sample[0].mean()))
    assert max(float(sample[0].mean()) for sample in asker.seen[0].values()) < float(reddest[0].mean())


def test_rbf_by_a_person_who_is_content_never_stops_early(folder: str) -> None:
    watch = Watch()
    run(Human(folder=folder, asker=Content()), RolloverBudget(1, 4), 40, watch)
    assert max(watch.carried) == 0


@pytest.mark.parametrize("mode", ["choose", "rate"])
def test_who_gets_up_can_go_on(mode: str, tmp_path: Path) -> None:
    """A run that nobody answered any more ends with its best; gone on with, it is as if nothing had been."""
    whole, search = Reddest(), RolloverBudget(1, 4)
    expected = run(Human(mode, str(tmp_path / "whole"), asker=whole), search, 40)
    folder, watch = str(tmp_path / "cut"), Watch()
    first = run(Human(mode, folder, asker=Reddest(patience=6)), search, 40, watch)
    assert first.interrupted
    assert first.reward > 0
    rest = Reddest()
    result = run(Human(mode, folder, resume=True, asker=rest), search, 40, resume=watch.checkpoint)
    assert (result.reward, result.interrupted) == (expected.reward, False)
    assert torch.equal(result.x0, expected.x0)
    assert len(rest.seen) == len(whole.seen) - 6


def test_there_must_be_answers_to_go_on_from(folder: str) -> None:
    with pytest.raises(RollflowError, match="cannot read the answers to resume from"):
        Human(folder=folder, resume=True).load()
    Human(folder=folder, asker=Reddest()).score(reds(0.1, 0.2), ["a", "a"])
    Human(folder=folder, resume=True).load()
    with pytest.raises(RollflowError, match="cannot read the answers to resume from"):
        Human("rate", folder, resume=True).load()
    Path(folder, "choose.pt").write_bytes(b"damaged")
    with pytest.raises(RollflowError, match="cannot read the answers to resume from"):
        Human(folder=folder, resume=True).load()


def test_answers_are_not_written_over(folder: str) -> None:
    """Not even by who goes on with a run and forgets to say so of the person: levels would begin at 1 again."""
    human = Human(folder=folder, asker=Reddest())
    human.load()
    human.score(reds(0.1, 0.2), ["a", "a"])
    human.load()
    kept = Path(folder, "choose.pt").read_bytes()
    again = Human(folder=folder, asker=Reddest())
    for _ in range(2):
        with pytest.raises(RollflowError, match=r"choose\.pt' has answers.*human\(resume=true\).*human\(folder="):
            again.load()
        with pytest.raises(RollflowError, match="has answers"):
            again.score(reds(0.3), ["a"])
    assert Path(folder, "choose.pt").read_bytes() == kept
    Human("rate", folder, asker=Reddest()).load()
    assert Human(folder=folder, resume=True, asker=Reddest()).score(reds(0.3), ["a"]).tolist() == [2]


def typed(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


def test_the_terminal_asks_again_until_it_understands(
    folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    human = Human(folder=folder)
    typed(monkeypatch, "0", "four", "", "-1", "3", " 2 ", "0")
    assert human.score(reds(0.2, 0.1), ["two cats"] * 2).tolist() == [0, 1]
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"'two cats': {folder}/candidates.png\nWhich is the best? [1-2] ")
    assert err.count("expected a number from 1 to 2, not") == 5
    assert human.score(reds(0.3, 0.4), ["two cats"] * 2).tolist() == [0, 0]
    assert "Which is the best (0 is the best so far)? [0-2] " in capsys.readouterr().err


def test_the_terminal_takes_ratings(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    typed(monkeypatch, "1", "1 2 3", "1 11", "-1 2", "nan 2", "one two", "7.5, 0")
    assert Human("rate", folder).score(reds(0.2, 0.1), ["x"] * 2).tolist() == [7.5, 0]


def test_no_end_of_input_is_taken_for_an_answer(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    human = Human(folder=folder)
    typed(monkeypatch, "1", "five")
    human.score(reds(0.2, 0.1), ["x"] * 2)
    with pytest.raises(RewardUnavailable, match="no input to judge candidates"):
        human.score(reds(0.3), ["x"])
    for nothing in (None, io.StringIO()):
        monkeypatch.setattr("sys.stdin", nothing)
        with pytest.raises(RewardUnavailable, match="no input to judge candidates"):
            human.score(reds(0.3), ["x"])
    typed(monkeypatch, "1")
    assert human.score(reds(0.3, 0.2), ["x"] * 2).tolist() == [2, 1]


def test_what_is_shown_is_what_is_scored() -> None:
    """Every pixel of every candidate, at its place, under its number; small ones enlarged by a whole factor."""
    samples = torch.rand(5, 3, 50, 70, generator=torch.Generator().manual_seed(0))
    sheet = np.asarray(contact_sheet(dict(enumerate(samples))))
    width, height = 280 + MARGIN, 200 + LABEL + MARGIN
    assert sheet.shape == (3 * height + MARGIN, 2 * width + MARGIN, 3)
    for number, sample in enumerate(as_bytes(samples)):
        top, left = MARGIN + number // 2 * height, MARGIN + number % 2 * width
        tile = sheet[top + LABEL : top + LABEL + 200, left : left + 280]
        assert np.array_equal(tile[::4, ::4], sample.permute(1, 2, 0).numpy())
        assert np.array_equal(tile[3::4, 1::4], tile[::4, ::4])
        assert (sheet[top : top + LABEL, left : left + 30] < 100).any()


def test_films_are_shown_whole(
    folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    films = torch.rand(2, 7, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    typed(monkeypatch, "2")
    assert Human(folder=folder).score(films, ["x"] * 2).tolist() == [0, 1]
    assert f"{folder}/candidate-1.webp, {folder}/candidate-2.webp" in capsys.readouterr().err
    for number, film in enumerate(as_bytes(films), 1):
        with Image.open(Path(folder, f"candidate-{number}.webp")) as file:
            assert file.n_frames == 7  # type: ignore[attr-defined]
            for i, frame in enumerate(film):
                file.seek(i)
                assert np.array_equal(np.asarray(file.convert("RGB")), frame.permute(1, 2, 0).numpy())


def test_the_viewer_is_opened_if_asked(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("typer.launch", opened.append)
    for show in (False, True):
        typed(monkeypatch, "1")
        Human(folder=f"{folder}-{show}", show=show).score(reds(0.1, 0.2), ["x"] * 2)
    assert opened == [f"{folder}-True/candidates.png"]


def test_a_folder_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    typed(monkeypatch, "1")
    with pytest.raises(RewardUnavailable, match="cannot write candidates to"):
        Human(folder=str(tmp_path / "file")).score(reds(0.1, 0.2), ["x"] * 2)
    with pytest.raises(RewardUnavailable, match="cannot save answers in"):
        Human(folder=str(tmp_path / "file"), asker=Reddest()).score(reds(0.1, 0.2), ["x"] * 2)


def test_settings_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REWARDS, Human.name, Human)
    human = REWARDS.make("human(mode=rate, folder=x, show=true)")
    assert isinstance(human, Human)
    assert isinstance(human.mode, Rate)
    assert isinstance(human.asker, Terminal)
    assert human.asker.show
    assert human.identity != Human(Choose()).identity
    with pytest.raises(RollflowError, match="unknown mode 'chose'; did you mean 'choose'"):
        Human("chose")
