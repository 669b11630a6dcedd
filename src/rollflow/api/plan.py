"""The plan behind a sample, which costs nothing to make."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from types import NoneType
from typing import Any, Literal, TypeVar, overload

from rollflow import checks
from rollflow.api import described
from rollflow.api.loading import load_model, load_reward
from rollflow.checks import MOST_NFE, MOST_SEED, MOST_STEPS
from rollflow.dynamics.grids import GRIDS
from rollflow.dynamics.guidance import GUIDANCE
from rollflow.dynamics.interpolants import INTERPOLANTS, Linear
from rollflow.dynamics.kernels import DDIM, KERNELS, Euler
from rollflow.dynamics.lookahead import LOOKAHEADS
from rollflow.engine import Engine, Job, Observer, Result, Spending, Task, default_sampler, estimate_cost
from rollflow.errors import BadSetting, RollflowWarning
from rollflow.models import FlowModel, Source, as_model, find_model
from rollflow.options import Options, options_of
from rollflow.output.runs import run_alone, run_in_folder
from rollflow.registry import Registry
from rollflow.rewards import REWARDS, RewardModel
from rollflow.rewards.checks import check_differentiable, check_names, check_reward, check_scorable
from rollflow.sampler import Dynamics, Sampler
from rollflow.search import SEARCHES, BestOfN, Search

T = TypeVar("T")


def _named(choice: str | T, registry: Registry[T]) -> T:
    """Create the choice that a text such as ``ddim(eta=0.5)`` names; return an object unchanged."""
    return registry.make(choice) if isinstance(choice, str) else choice


def _chosen(name: str, value: T, *kinds: type[Any]) -> T:
    """Return the value if it is a name or an object of one of the classes; raise a BadSetting otherwise."""
    pair = ["a pair (velocity, shape)"] if FlowModel in kinds else []
    objects = (checks.with_article(kind.__name__) for kind in kinds if kind is not NoneType)
    what = " or ".join(["a name", *objects, *pair])
    checks.instance(name, value, str, *kinds, what=what)
    if isinstance(value, RewardModel):
        check_reward(name, value)
    return value


@dataclass(frozen=True)
class Plan(Options):
    """Everything that ``generate`` needs to know. Making a plan checks it; only ``task`` and ``run`` load weights.

    Every choice is an object or a text: a name of its registry (``MODELS``, ``SEARCHES``, ...), of a plug-in or
    ``module:attribute``, with settings in parentheses if it has any: ``"ddim(eta=0.5)"``.

    Args:
        prompt: Description of the sample; a ``Prompt`` also holds the counts that rewards check.
        model: Flow model: a name, a repository of the Hugging Face hub (``owner/name``) or a folder with a diffusers
            pipeline, a ``PipelineSource`` that says how to load one, a loaded model, or a pair of a velocity function
            and the shape of its states (``FunctionModel``).
        method: Search method.
        reward: Reward to optimize.
        held_out: Rewards that no search sees and that score the result; None takes those that the reward names.
        nfe: Budget, in guided velocity evaluations.
        seed: Seed of all random draws, 0 <= seed < 2^63.
        interpolant: Path that is sampled along; None is variance preserving for a step-distilled model, the paper's
            choice for such (arXiv 2503.19385), and linear for any other: the paper's grid spends most steps where only
            a distilled model's estimates say anything (docs/design/scenes.md).
        kernel: Transition from x_t to x_s; None is the one that the method's paper uses, else the reverse SDE.
        steps: Number of evaluation times from noise to data.
        grid: Placement of the evaluation times; None is the model's own grid along its interpolant, if it has one,
            else ``Arc`` along VP and ``Uniform`` along any other.
        lookahead: Estimate of the clean sample that is shown to the reward.
        guidance: Guidance of the children by the gradient of a differentiable reward; None is no guidance.
        finish: Whether the sample is fully denoised inside the budget; None leaves it to the model.
        max_rows: Largest batch of one call of the model.
        max_grad_rows: Largest batch of a call that guidance differentiates, whose memory it bounds.

    Raises:
        UnknownName: If a name is not known.
        BudgetTooSmall: If the method cannot run in ``nfe``; the error holds the smallest budget that works.
        NotDifferentiable: On guidance by a reward that has no gradient.
        BadSetting: If an argument has the wrong type or is out of range, or the model cannot read the prompt.
    """

    def __post_init__(self) -> None:
        self._check_types()
        check_names("held-out reward", [judge for judge in self.judges if not judge.remote])
        for judge in self.judges:
            if judge.relative:
                raise BadSetting(
                    f"'{judge.name}' compares samples with earlier ones, so it cannot be a held-out reward, which "
                    "scores a single sample"
                )
        _ = self.sampler  # an unknown name comes before what does not fit together
        if self.guidance is not None:
            check_differentiable(self.declared_reward)
        self._check_prompt()
        self.cost()

    def __getstate__(self) -> dict[str, Any]:
        return {one.name: vars(self)[one.name] for one in fields(self) if one.name in vars(self)}  # without the caches

    def _check_prompt(self) -> None:
        """Raise the error of the run if the model or a reward cannot read the prompt, or lacks a package."""
        if not isinstance(self.declared_model, Source):
            self.declared_model.check_prompt(self.prompt)
        for reward in (self.declared_reward, *self.judges):
            check_scorable(reward, self.prompt)

    def _check_types(self) -> None:
        """Raise a BadSetting if an argument is of the wrong type or out of range."""
        checks.text("the prompt", self.prompt, what="a string that describes the sample")
        object.__setattr__(self, "model", _chosen("model", as_model(self.model), FlowModel, Source))
        for name, (one, option) in options_of(type(self)).items():
            registry = option.find_registry()
            if registry is None or name in ("model", "held_out"):
                continue
            kinds = (registry.base, NoneType) if one.default is None else (registry.base,)
            _chosen(name, getattr(self, name), *kinds)
        if self.held_out is not None:
            judges = checks.each(
                "held_out", self.held_out, lambda name, value: _chosen(name, value, RewardModel), "a list of rewards"
            )
            object.__setattr__(self, "held_out", judges)
        if self.finish is not None:
            checks.flag("finish", self.finish)
        for name, value in (
            ("nfe", checks.whole("nfe", self.nfe, at_most=MOST_NFE)),
            ("seed", checks.whole("seed", self.seed, at_least=0, at_most=MOST_SEED)),
            ("steps", checks.whole("steps", self.steps, at_least=1, at_most=MOST_STEPS)),
            ("max_rows", checks.whole("max_rows", self.max_rows, at_least=1)),
            ("max_grad_rows", checks.whole("max_grad_rows", self.max_grad_rows, at_least=1)),
        ):
            object.__setattr__(self, name, value)

    @cached_property
    def declared_model(self) -> FlowModel | type[FlowModel] | Source:
        """The model, or the class or source with its attributes before it is loaded."""
        return find_model(self.model) if isinstance(self.model, str) else as_model(self.model)

    @cached_property
    def declared_reward(self) -> RewardModel | type[RewardModel]:
        """The reward, or its class if it need not be created before it is loaded."""
        return REWARDS.resolve(self.reward) if isinstance(self.reward, str) else self.reward

    @cached_property
    def judges(self) -> list[RewardModel | type[RewardModel]]:
        """The held-out rewards, or their classes."""
        named = self.declared_reward.held_out if self.held_out is None else self.held_out
        return [REWARDS.resolve(judge) if isinstance(judge, str) else judge for judge in named]

    @property
    def structured(self) -> bool:
        """Whether a reward reads what the prompt asks for (``prompts.asked``)."""
        return any(reward.structured for reward in (self.declared_reward, *self.judges))

    @cached_property
    def search(self) -> Search:
        """The search method."""
        return _named(self.method, SEARCHES)

    @cached_property
    def sampler(self) -> Sampler:
        """The sampler, which moves the particles."""
        default = default_sampler(self.declared_model, self.search)
        return Sampler(
            default.interpolant if self.interpolant is None else _named(self.interpolant, INTERPOLANTS),
            default.kernel if self.kernel is None else _named(self.kernel, KERNELS),
            grid=None if self.grid is None else _named(self.grid, GRIDS),
            steps=self.steps,
            lookahead=_named(self.lookahead, LOOKAHEADS),
            finish=self.finish,
            guidance=None if self.guidance is None else _named(self.guidance, GUIDANCE),
        )

    @property
    def dynamics(self) -> Dynamics:
        """The sampler, bound to what the model declares."""
        return self.sampler.bind(self.declared_model)

    @cached_property
    def task(self) -> Task:
        """Model, prompt and rewards; the first use loads the weights of those given by name."""
        model, reward = self.declared_model, load_reward(self.declared_reward)
        judges = self.judges
        if self.held_out is None and reward.remote:  # its held-out rewards are known only now, and may not exist here
            judges = [REWARDS.resolve(name) for name in reward.held_out if name in REWARDS.names()]
        loaded = tuple(map(load_reward, judges))
        check_names("held-out reward", loaded)
        flow = model if isinstance(model, FlowModel) else load_model(model)
        return Task(flow, self.prompt, reward, loaded)

    def cost(self) -> Spending:
        """Estimate the most that the search will spend, before anything is loaded."""
        return estimate_cost(self.declared_model, self.search, self.sampler, self.nfe)

    @property
    def rows_per_nfe(self) -> int | None:
        """Network rows of one NFE; None if the model does not know them before it is loaded."""
        return self.declared_model.rows_per_nfe

    def baseline_cost(self) -> Spending:
        """Estimate the cost of ``baseline``, which is outside the budget of the search."""
        return estimate_cost(self.declared_model, BestOfN(), self._plain(), self.steps)

    def _plain(self) -> Sampler:
        own = self.declared_model.interpolant
        return Sampler(own, Euler() if isinstance(own, Linear) else DDIM(eta=0.0), steps=self.steps)

    def job(self, seed: int | None = None) -> Job:
        """Make the job of the search, with the plan's seed or another."""
        seed = self.seed if seed is None else seed
        return Job(self.task, self.search, self.nfe, seed, self.sampler, plan=self.to_json() | {"seed": int(seed)})

    def baseline(self, seed: int | None = None) -> Job:
        """Make the job of the plain sample, without a search: ``steps`` steps of the model's own ODE and grid.

        It starts from the first noise that a search with the same seed draws. The solver is Euler's method along the
        linear interpolant, and DDIM with eta = 0 along that of a diffusion model.
        """
        return Job(self.task, BestOfN(), self.steps, self.seed if seed is None else seed, self._plain())

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
        if result.cause is not None:
            warnings.warn(
                f"the search ended early, after {result.spent.nfe} of {self.nfe} NFE, and returns its best sample so "
                f"far: {result.cause}",
                RollflowWarning,
                stacklevel=2,
            )
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
