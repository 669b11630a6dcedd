"""The noise and the id of a trial, on which all journals depend: functions of its contents alone."""

from __future__ import annotations

import pytest
import torch
from support.tiny import Judge, Redness, TinyModel

from rollflow.bench.run.experiment import Arm, Trial
from rollflow.bench.run.plans import job_of
from rollflow.bench.suites.load import Item
from rollflow.engine import Engine

ARMS = {
    "plain": Arm("plain", steps=10),
    "bon": Arm("BoN", "bon", 24, interpolant="linear", kernel="sde", steps=4),
    "rbf": Arm(
        "RBF, all",
        "rbf(initial=2)",
        500,
        interpolant="vp",
        kernel="ddim(eta=0.5)",
        grid="arc",
        guidance="dps(scale=2.0)",
        steps=7,
        finish=True,
    ),
    "smc": Arm("SMC", "smc", 24, steps=10, finish=False),
}
ITEMS = {
    "plain": Item("a red square"),
    "counted": Item("two red squares", "counting", {"red square": 2}),
    "unicode": Item("ein grüner Kreis 🟢"),
    "quoted": Item('say "hi", \\n'),
}


@pytest.mark.parametrize(
    ("item", "seed", "noise"),
    [
        ("plain", 0, 0x64C6C54CD56D3E28),
        ("plain", 1, 0x0EA3A8EAE47E04D9),
        ("plain", 17, 0x3609EC3913A87160),
        ("counted", 0, 0x667325141C5D0334),
        ("counted", 1, 0x1ACA2D11710F62DE),
        ("unicode", 0, 0x3812BBAAE3189B4A),
        ("unicode", 17, 0x26AF2D31045D648D),
        ("quoted", 0, 0x7943AB3AE856BC3B),
    ],
)
def test_noise(item: str, seed: int, noise: int) -> None:
    """The noise depends on prompt and seed alone, not on the arm, the place of the prompt or what it asks for."""
    one = ITEMS[item]
    assert {Trial(arm, 0, one, seed).noise for arm in ARMS.values()} == {noise}
    assert Trial(ARMS["bon"], 9, Item(one.prompt, "another", {"thing": 3}), seed).noise == noise


@pytest.mark.parametrize(
    ("arm", "item", "seed", "name"),
    [
        ("plain", "plain", 0, "56ed8d2447126be5"),
        ("plain", "plain", 3, "0a708e800d3ca8a4"),
        ("plain", "counted", 0, "5b9674065904bf88"),
        ("plain", "unicode", 0, "7a32c4ebf1370eea"),
        ("bon", "plain", 0, "375b4622eb846284"),
        ("bon", "counted", 3, "843019e706a4f381"),
        ("rbf", "plain", 0, "4ec16e5808529141"),
        ("rbf", "unicode", 3, "b5020a32cad1fef0"),
        ("smc", "counted", 0, "7b149057a65a64b3"),
    ],
)
def test_id(arm: str, item: str, seed: int, name: str) -> None:
    """The id depends on arm, prompt and seed, not on the prompt's place; a new setting of arms must not change it."""
    assert Trial(ARMS[arm], 0, ITEMS[item], seed).id == Trial(ARMS[arm], 7, ITEMS[item], seed).id == name


def test_every_part_of_a_trial_is_in_its_id() -> None:
    item = ITEMS["counted"]
    others = (Item("two red squares", "other", item.ask), Item("two red squares", "counting", {"red square": 3}))
    names = [Trial(arm, 0, one, seed).id for arm in ARMS.values() for one in (item, *others) for seed in (0, 1)]
    assert len(set(names)) == len(names)


def test_prompts_of_one_seed_have_different_noise() -> None:
    """The tiny model gives all prompts the same sample from the same noise, so that samples reveal noises."""
    model, arm = TinyModel(), Arm("plain", steps=2)
    items = (Item("a red square"), Item("a red squarf"), Item("a red square "))
    trials = [Trial(arm, 0, item, seed) for seed in (0, 1) for item in items]
    jobs = [job_of(trial, model, Redness(), [Judge()], max_rows=8) for trial in trials]
    assert [job.seed for job in jobs] == [trial.noise for trial in trials]
    samples = [result.sample for result in Engine(8).run(jobs)]
    for i, one in enumerate(samples):
        for other in samples[:i]:
            assert float((one - other).abs().max()) > 0.01
    again = Engine(8).run([job_of(trials[0], model, Redness(), [Judge()], max_rows=8)])[0].sample
    torch.testing.assert_close(again, samples[0], rtol=0, atol=1e-6)
