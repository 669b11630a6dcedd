"""The contract of searches: budget, account, seed, resuming, and independence of other jobs."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rollflow.dynamics.kernels import KERNELS
from rollflow.engine import Checkpoint, Engine, Job, Observer, Task, load_checkpoint, save_checkpoint
from rollflow.errors import BudgetTooSmall, RollflowWarning
from rollflow.particles.rng import Noise
from rollflow.requests import Request, drive
from rollflow.rewards.toy import ToyReward
from rollflow.sampler import Sampler
from rollflow.search import BestOfN, Finished, Propagator, Search
from rollflow.testing.jobs import JUDGE, MODEL, SAMPLERS, along, assert_kept, assert_same, every_sampler, make
from rollflow.testing.reference import Answering, alone
from rollflow.testing.values import assert_one_line, assert_value, docstring, modes, same

REFERENCE = re.compile(r"arXiv \d{4}\.\d{4,5}|doi\.org/\S|[Uu]npublished")


class _Files(Observer):
    """Writes each checkpoint to its own file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths: list[Path] = []

    def checkpointed(self, job: Job, checkpoint: Checkpoint) -> None:
        self.paths.append(self.folder / f"{len(self.paths)}.pt")
        save_checkpoint(job, checkpoint, self.paths[-1])


class Fastidious(ToyReward):
    """A reward that is not finite for a third of all samples."""

    probed = False

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        digits = (samples.abs().sum(1) * 1000).floor()
        return torch.where(digits % 3 == 0, torch.nan, super().score(samples, prompts))


class SearchSuite:
    """Tests of a search; a subclass provides the fixture ``search``, best with several settings::

        class TestBeam(SearchSuite):
            @pytest.fixture(params=[Beam(), Beam(width=3)], ids=repr)
            def search(self, request):
                return request.param

    The model is a two-dimensional toy, sampled in each of the ways of ``SAMPLERS``.
    """

    @pytest.fixture
    def search(self) -> Search:
        """Return the search under test."""
        raise NotImplementedError(f"{type(self).__name__} must provide a fixture 'search'")

    def test_it_says_what_it_is(self, search: Search) -> None:
        """It has a name, a docstring with a reference (or "unpublished") and its cost, and a kernel that exists."""
        assert_one_line(search.name, "name")
        text = docstring(type(search))
        assert REFERENCE.search(text), "the docstring cites nothing: 'arXiv 2503.19385', a doi.org link, 'unpublished'"
        assert re.search(r"^Cost: \S", text, re.MULTILINE), "the docstring has no line that begins with 'Cost: '"
        if search.default_kernel is not None:
            KERNELS.make(search.default_kernel)

    def test_its_settings_are_a_value(self, search: Search) -> None:
        """It is a frozen dataclass whose ``repr``, which identifies the job of a checkpoint, shows every setting."""
        assert_value(search)

    @every_sampler
    def test_the_smallest_budget_works_and_one_less_is_refused(self, search: Search, sampler: Sampler) -> None:
        """The smallest budget works; one less is refused, with an error that names the smallest budget."""
        job = make(search, sampler)
        [result] = Engine().run([job])
        assert_kept(job, result.spent)
        for nfe in {1, job.nfe - 1} - {0, job.nfe}:
            message = f"{re.escape(job.search.name)} .* {nfe} NFE .* is {job.nfe} NFE"
            with pytest.raises(BudgetTooSmall, match=message) as refusal:
                replace(job, nfe=nfe)
            assert refusal.value.smallest == job.nfe

    @every_sampler
    def test_what_is_declared_is_spent(self, search: Search, sampler: Sampler) -> None:
        """The declared cost is spent, for every kind of cost, at budgets that divide evenly and at others."""
        for spare in (1, 11):
            job = make(search, sampler, spare)
            assert_kept(job, alone(job).spent)
            assert sum(search.shares(job.dynamics, job.nfe)) <= job.nfe

    def test_the_seed_decides_everything(self, search: Search) -> None:
        """The same seed gives the same bits, regardless of earlier draws; another seed gives another sample."""
        job = make(search, SAMPLERS["linear"], 9)
        first, again, other = (alone(one).best for one in (job, job, replace(job, seed=6)))
        assert same(first, again)
        assert not torch.equal(first.x0, other.x0)

    @every_sampler
    def test_the_engine_gives_what_drive_gives(self, search: Search, sampler: Sampler) -> None:
        """The engine gives the result of ``drive`` to the last bit, with few rows per call."""
        job = make(search, sampler, 9)
        expected, [result] = alone(job), Engine(3, max_grad_rows=2).run([job])
        assert torch.equal(result.x0, expected.best.x0)
        assert (result.reward, result.noise_level) == (expected.best.reward, expected.best.noise_level)
        assert same(result.diagnostics, tuple(one.diagnostics or {} for one in expected.populations))
        assert result.spent == expected.spent

    @along("linear", "guided-vp")
    def test_company_does_not_matter(self, search: Search, sampler: Sampler) -> None:
        """A job gives the same result alone as it does with the same search on another seed and another search."""
        job = make(search, sampler, 9)
        other = replace(make(BestOfN(), sampler, 20), task=Task(MODEL, "right", ToyReward()))
        [single] = Engine().run([job])
        _, ours, _ = Engine(7).run([replace(job, seed=6), job, other])
        assert_same(ours, single)

    @every_sampler
    def test_it_goes_on_from_every_state_saved(self, search: Search, sampler: Sampler) -> None:
        """From every saved state it continues to the same bits and states; each state records NFE spent and left."""
        job = make(search, sampler, 13)
        share = search.shares(job.dynamics, job.nfe)[-1]
        propagator = Propagator(job.dynamics, Noise(6, 1, MODEL.shape, MODEL.dtype), share)
        first = Answering(job.task)
        whole, nfe_to_come = drive(search.population(propagator), first), first.spent.nfe
        states, unused = first.saved, share - first.spent.nfe
        assert states, "it saves no state, so it cannot be resumed"
        for i, state in enumerate(states):
            rest = Answering(job.task)
            assert same(drive(search.population(propagator, state), rest), whole)
            assert same(rest.saved, states[i + 1 :])
            assert state.nfe_spent == nfe_to_come - rest.spent.nfe
            assert 0 <= state.nfe_left - rest.spent.nfe <= unused
            nfe_to_come = rest.spent.nfe

    @along("linear", "guided-vp")
    def test_it_goes_on_from_checkpoint_files(self, search: Search, sampler: Sampler, tmp_path: Path) -> None:
        """Its states can be written and read, and the job ends as if it had never stopped."""
        job, files = make(search, sampler, 13), _Files(tmp_path)
        with warnings.catch_warnings():
            warnings.simplefilter("error", RollflowWarning)  # the warning about a state that cannot be written
            [whole] = Engine(observers=[files]).run([job])
        for result in Engine().run(replace(job, resume=load_checkpoint(job, path)) for path in files.paths):
            assert_same(result, whole)

    @along("linear", "vp", "ddim", "one-step")
    def test_what_is_returned_is_what_was_judged(self, search: Search, sampler: Sampler) -> None:
        """The reward is that of the returned sample, which is finished if the sampler finishes samples."""
        job = make(search, sampler, 9)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RollflowWarning)  # of a reward that no sample had
            [result] = Engine().run([job])
        assert result.reward == float(JUDGE.score(result.sample[None], ["left"]))
        assert result.finished or not job.dynamics.finished
        assert 0 <= result.noise_level <= 1

    @along("linear", "vp")
    def test_it_goes_on_without_samples_that_must_not_be_chosen(self, search: Search, sampler: Sampler) -> None:
        """If a third of all samples have reward -inf, it returns another one and spends no more than declared.

        A search that finishes a single sample may finish one that must not be chosen, but not whatever the seed.
        """
        for seed in range(10):
            job = make(search, sampler, 60, seed)
            job = replace(job, task=replace(job.task, reward=Fastidious(JUDGE.target)))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RollflowWarning)
                [result] = Engine(3).run([job])
            assert math.isfinite(result.reward)
            assert result.reward == float(JUDGE.score(result.sample[None], ["left"]))
            assert_kept(job, result.spent)
            if result.ineligible and result.cause is None:
                break
        assert result.ineligible, "no sample had reward -inf, so this test shows nothing"
        assert result.cause is None, f"it returned no sample that can be chosen: {result.cause}"
        assert torch.equal(result.x0, alone(job).best.x0)

    def test_nothing_is_held_while_it_waits(self, search: Search) -> None:
        """No mode is switched across a ``yield``: ``torch.no_grad()`` would then affect all other searches."""
        job, outside = make(search, SAMPLERS["linear"]), modes()
        answering = Answering(job.task)

        def answer(request: Request) -> Any:
            assert modes() == outside, "a mode of torch is switched while the search waits for an answer"
            return answering(request)

        for population in job.populations():
            assert not isinstance(population, Finished)
            with closing(population):
                drive(population, answer)
