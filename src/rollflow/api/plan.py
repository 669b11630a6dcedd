"""The plan behind a sample, which costs nothing to make."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, overload

from rollflow.api import described
from rollflow.api.choices import Choices
from rollflow.api.loading import load_model, load_reward
from rollflow.api.plan_checks import check_judges, check_prompt, checked, checked_seed
from rollflow.api.unknown_options import known_options_only
from rollflow.dynamics.interpolants import Linear
from rollflow.dynamics.kernels import DDIM, Euler
from rollflow.engine import Engine, FinalChoice, Job, Observer, Result, Spending, Task, estimate_cost
from rollflow.errors import BadSetting, RollflowWarning
from rollflow.models import FlowModel
from rollflow.options import sampling_of
from rollflow.output.runs import run_alone, run_in_folder
from rollflow.rewards import REWARDS
from rollflow.rewards.checks import check_differentiable, check_names
from rollflow.sampler import Sampler
from rollflow.search import BestOfN


@known_options_only
@dataclass(frozen=True)
class Plan(Choices):
    """Everything that ``generate`` needs to know. Making a plan checks it; only ``task`` and ``run`` load weights.

    Every choice is an object or a text: a name of its registry (``MODELS``, ``SEARCHES``, ...), of a plug-in or
    ``module:attribute``, with settings in parentheses if it has any: ``"ddim(eta=0.5)"``.

    Args:
        prompt: Description of the sample; a ``Prompt`` also holds the counts that rewards check.
        model: Flow model: a name, a repository of the Hugging Face hub (``owner/name``) or a folder with a diffusers
            pipeline, a ``PipelineSource`` that says how to load one, a loaded model, a loaded pipeline of diffusers or
            a pair of one and the arguments of its call, ``(pipe, {"height": 512})``, or a pair of a velocity function
            and the shape of its states (``FunctionModel``). Making a plan calls the network of a loaded pipeline a few
            times, to learn how it samples; to do so only once for many plans, pass ``load_model(pipe)``.
        method: Search method.
        as_published: Whether the method runs as in the release of arXiv 2503.19385: settings of the method and of its
            sampling that are not given have the published values instead of the defaults (docs/methods/published.md).
        reward: Reward to optimize; a function ``f(images, prompts)`` becomes a ``FunctionReward``, as it does in the
            options below.
        surrogate: Reward that the search optimizes in place of the reward, which then only scores the result. True or
            ``own`` is the reward's own, smooth surrogate, if it has one; False or ``none`` is the reward itself. None
            is the former unless ``as_published`` is set.
        held_out: Rewards that no search sees and that score the result; None takes those that the reward names.
        choose_by: Second reward, which chooses the sample among the last candidates of the search (``FinalChoice``);
            None returns the one that the search likes best. It is not held out, even if the reward names it.
        shortlist: Number of candidates that ``choose_by`` chooses among.
        nfe: Budget, in guided velocity evaluations.
        seed: Seed of all random draws, 0 <= seed < 2^63.
        interpolant: Path that is sampled along; None is variance preserving for a step-distilled model, the paper's
            choice for such (arXiv 2503.19385), and linear for any other: the paper's grid spends most steps where only
            a distilled model's estimates say anything (docs/design/scenes.md).
        kernel: Transition from x_t to x_s; None is the one that the method's paper uses, else the reverse SDE.
        steps: Number of evaluation times from noise to data; None is the method's own choice, else 10.
        grid: Placement of the evaluation times; None is the method's own choice, else the model's own grid along its
            interpolant, if it has one, else ``Arc`` along VP and ``Uniform`` along any other.
        lookahead: Estimate of the clean sample that is shown to the reward.
        guidance: Guidance of the children by the gradient of a differentiable reward; None is no guidance.
        finish: Whether the sample is fully denoised inside the budget; None leaves it to the model.
        best_seen: Whether the best clean estimate of the whole search is returned, rather than the best of the last
            time; only without ``finish``.
        max_rows: Largest batch of one call of the model.
        max_grad_rows: Largest batch of a call that guidance differentiates, whose memory it bounds.

    Raises:
        UnknownName: If a name is not known.
        UnknownOption: If there is no such option.
        BudgetTooSmall: If the method cannot run in ``nfe``; the error holds the smallest budget that works.
        NotDifferentiable: On guidance by a reward that has no gradient.
        BadSetting: If an argument has the wrong type or is out of range, or the model cannot read the prompt.
    """

    def __post_init__(self) -> None:
        for name, value in checked(self).items():
            object.__setattr__(self, name, value)
        check_judges(self.judges, self.seen)
        _ = self.sampler  # an unknown name comes before what does not fit together
        if self.guidance is not None:
            check_differentiable(self.declared_objective)
        check_prompt(self.prompt, self.declared_model, self.declared_rewards)
        self.cost()

    def __getstate__(self) -> dict[str, Any]:
        return {one.name: vars(self)[one.name] for one in fields(self) if one.name in vars(self)}  # without the caches

    @cached_property
    def task(self) -> Task:
        """Model, prompt and rewards; the first use loads the weights of those given by name."""
        model, reward = self.declared_model, load_reward(self.declared_reward)
        judges = self.judges
        if self.held_out is None and reward.remote:  # its held-out rewards are known only now, and may not exist here
            judges = [REWARDS.resolve(name) for name in reward.held_out if name in REWARDS.names()]
        loaded = tuple(map(load_reward, judges))
        check_names("held-out reward", loaded)
        surrogate = self.declared_surrogate
        if surrogate is not None:
            surrogate = load_reward((reward.own_surrogate or surrogate) if self._own_surrogate else surrogate)
        flow = model if isinstance(model, FlowModel) else load_model(model)
        chooser = self.declared_chooser
        choice = None if chooser is None else FinalChoice(load_reward(chooser), self.shortlist)
        return Task(flow, self.prompt, reward, loaded, surrogate, choice)

    def cost(self) -> Spending:
        """Estimate the most that the search will spend, before anything is loaded."""
        scored = 0 if self.choose_by is None else self.shortlist
        choice = Spending(reward_calls=scored, decodes=scored)
        return estimate_cost(self.declared_model, self.search, self.sampler, self.nfe) + choice

    def baseline_cost(self) -> Spending:
        """Estimate the cost of ``baseline``, which is outside the budget of the search."""
        return estimate_cost(self.declared_model, BestOfN(), self._plain(), self.plain_steps)

    def _plain(self) -> Sampler:
        own = self.declared_model.interpolant
        return Sampler(own, Euler() if isinstance(own, Linear) else DDIM(eta=0.0), steps=self.plain_steps)

    def job(self, seed: int | None = None, *, task: Task | None = None) -> Job:
        """Make the job of the search, with the plan's seed or another.

        Its record holds the search with every choice made, so that it can be repeated without what they were made from.

        Args:
            seed: Seed in place of the plan's; None keeps that.
            task: Loaded task of a plan that differs in nothing but its prompt, so that both share model and rewards.
        """
        task = self.task if task is None else replace(task, prompt=self.prompt)
        seed = self.seed if seed is None else checked_seed(seed)
        plan = self.to_json() | {"seed": seed}
        if self.search != self.named_search:
            plan["method"] = described.method_text(self.search)
        if self._own_surrogate and self.declared_surrogate is not None:
            plan["surrogate"] = True
        return Job(task, self.search, self.nfe, seed, self.sampler, plan=plan)

    def baseline(self, seed: int | None = None) -> Job:
        """Make the job of the plain sample, without a search: ``plain_steps`` steps of the model's own ODE and grid.

        It starts from the first noise that a search with the same seed draws. The solver is Euler's method along the
        linear interpolant, and DDIM with eta = 0 along that of a diffusion model.
        """
        seed = self.seed if seed is None else checked_seed(seed)
        search, sampler = BestOfN(), self._plain()
        options = {"method": search, "as_published": False, "choose_by": None, "nfe": self.plain_steps, "seed": seed}
        options |= sampling_of(sampler)
        plan = self.to_json() | described.values_to_json(options, type(self))
        task = self.task if self.task.choice is None else replace(self.task, choice=None)
        return Job(task, search, self.plain_steps, seed, sampler, plan=plan)

    @overload
    def run(
        self,
        out: Path | str | None = None,
        *,
        resume: Literal[False] = False,
        compare: bool = False,
        held_out_path: bool = False,
        observers: Iterable[Observer] = (),
    ) -> Result: ...

    @overload
    def run(
        self,
        out: Path | str | None = None,
        *,
        resume: bool,
        compare: bool = False,
        held_out_path: bool = False,
        observers: Iterable[Observer] = (),
    ) -> Result | None: ...

    def run(
        self,
        out: Path | str | None = None,
        *,
        resume: bool = False,
        compare: bool = False,
        held_out_path: bool = False,
        observers: Iterable[Observer] = (),
    ) -> Result | None:
        """Search for the best sample; with an output folder, write the same files as ``rollflow generate``.

        Args:
            out: Output folder for the sample, ``result.json``, plots, and a checkpoint while the search runs. None
                writes nothing.
            resume: Whether to continue from the checkpoint in the folder.
            compare: Whether to also write the plain sample of the same seed.
            held_out_path: Whether held-out rewards also score the path that led to the sample.
            observers: Observers of every step.

        Returns:
            The result; None if ``resume`` finds a finished run, whose files are left unchanged.

        Raises:
            RollflowError: As for ``generate``.
            BadSetting: If the folder holds files of the user that would be replaced, or the checkpoint of another run.
            BadCheckpoint: If there is no checkpoint to continue from, or it belongs to another run.
            FolderError: If the folder cannot be written to, or another run is writing to it.
            Interrupted: On Ctrl-C, after writing the best sample so far.
        """
        if out is None:
            if resume or compare or held_out_path:
                raise BadSetting("resume, compare and held_out_path need a folder; give out")
            engine = Engine(self.max_rows, observers, max_grad_rows=self.max_grad_rows)  # checks before loading
            result = run_alone(engine, self.job())
        else:
            outcome = run_in_folder(
                self, Path(out), compare=compare, resume=resume, held_out_path=held_out_path, observers=tuple(observers)
            )
            if outcome.stopped is not None:
                raise outcome.stopped
            if outcome.result is None:
                return None
            result = outcome.result
        warn_of_early_end(result)
        return result

    def to_json(self) -> dict[str, Any]:
        """Return every option by name, in JSON types, from which ``from_json`` makes an equal plan."""
        return described.to_json(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any], *, trusted: bool = False) -> Plan:
        """Make a plan from its JSON, such as the ``plan`` of a ``result.json``.

        Args:
            content: Options by name; missing ones have their defaults.
            trusted: Whether the content may name modules, files, models and servers; otherwise only names of the
                library and of plug-ins are accepted, with numbers as settings.

        Raises:
            RollflowError: If an option is unknown, malformed, not trusted, or was an object that JSON cannot hold.
        """
        return cls(**described.from_json(cls, content, where="the plan", trusted=trusted))


def warn_of_early_end(result: Result) -> None:
    """Warn of a result whose search ended early by an error."""
    if result.cause is not None:
        warnings.warn(
            f"the search ended early, after {result.spent.nfe} of {result.budget} NFE, and returns its best sample so "
            f"far: {result.cause}",
            RollflowWarning,
            stacklevel=3,
        )
