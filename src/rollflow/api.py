"""From names to a sample in one call, and the plan behind it, which costs nothing to make."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, fields
from functools import cached_property
from types import NoneType
from typing import Any, TypeVar

from rollflow import checks
from rollflow.checks import MOST_NFE, MOST_SEED, MOST_STEPS
from rollflow.defaults import (
    DEFAULT_LOOKAHEAD,
    DEFAULT_MAX_GRAD_ROWS,
    DEFAULT_MAX_ROWS,
    DEFAULT_METHOD,
    DEFAULT_MODEL,
    DEFAULT_NFE,
    DEFAULT_REWARD,
    DEFAULT_STEPS,
)
from rollflow.dynamics.grids import GRIDS, Grid
from rollflow.dynamics.guidance import GUIDANCE, Guidance
from rollflow.dynamics.interpolants import INTERPOLANTS, Interpolant, Linear
from rollflow.dynamics.kernels import DDIM, KERNELS, Euler, Kernel
from rollflow.dynamics.lookahead import LOOKAHEADS, Lookahead
from rollflow.engine import Engine, Job, JobsFailed, Observer, Result, Spending, Task, default_sampler, estimate_cost
from rollflow.errors import BadSetting, RollflowWarning, blamed
from rollflow.models import DiffusersModel, FlowModel, Source, VelocityPair, as_model, find_model
from rollflow.registry import Registry
from rollflow.rewards import REWARDS, RewardModel, scoring
from rollflow.rewards.checks import check_differentiable, check_names, check_reward, check_scorable
from rollflow.sampler import Dynamics, Sampler
from rollflow.search import SEARCHES, BestOfN, Search

T = TypeVar("T")


def _named(choice: str | T, registry: Registry[T]) -> T:
    """An object as it is, or what a text such as ``ddim(eta=0.5)`` names."""
    return registry.make(choice) if isinstance(choice, str) else choice


def _chosen(name: str, value: T, *kinds: type[Any]) -> T:
    """The value if it is a name or an object of one of the classes; else raise a BadSetting."""
    what = " or ".join(["a name", *(kind.__name__ for kind in kinds if kind is not NoneType)])
    checks.instance(name, value, str, *kinds, what=what)
    if isinstance(value, RewardModel):
        check_reward(name, value)
    return value


@dataclass(frozen=True)
class Plan:
    """What ``generate`` will do. Making one checks every name and the budget; only ``task`` loads weights.

    Everything that is chosen is an object or a text: a name of its registry (``MODELS``, ``SEARCHES``, ...), of a
    plug-in or ``module:attribute``, with settings in parentheses where it has any: ``"ddim(eta=0.5)"``.

    Args:
        prompt: What to make; a ``Prompt`` also says what it asks for, to rewards that count.
        model: The flow model: also a repository of the hub (``owner/name``) or a folder that holds a pipeline of
            diffusers, or a ``PipelineSource`` with more to say of how to load it, or a pair of a velocity function and
            the shape of its states (``FunctionModel``).
        method: The search.
        reward: What it optimises.
        held_out: Rewards that no search sees, which are scored on the result; None is those that the reward names.
        nfe: The budget, in guided velocity evaluations.
        seed: Of all noise, 0 <= seed < 2^63.
        interpolant: The one sampled along; None is variance preserving for a step-distilled model, the paper's choice
            for such (arXiv 2503.19385), and linear for any other: the paper's grid spends most steps where only a
            distilled model's estimates say anything (docs/design/scenes.md).
        kernel: How x_t becomes x_s; None is the one that the method's paper runs it with, else the reverse SDE.
        steps: Evaluation times from noise to data.
        grid: Where they lie; None is the model's own along its interpolant, if it has one, else the paper's: ``Arc``
            along VP, ``Uniform`` along any other.
        lookahead: What clean sample a state shows to the reward.
        finish: Whether the sample is fully denoised inside the budget; None leaves it to the model.
        guidance: Which way children lean, for differentiable rewards; None is no guidance.

    Raises:
        UnknownName: On a name that nothing has.
        BudgetTooSmall: If the method cannot run in ``nfe``; the error holds the smallest budget that works.
        NotDifferentiable: On guidance by a reward that no gradient flows through.
        BadSetting: On an argument of the wrong type or out of range, or a prompt that the model cannot read.
    """

    prompt: str
    _: KW_ONLY
    model: str | FlowModel | Source | VelocityPair = DEFAULT_MODEL
    method: str | Search = DEFAULT_METHOD
    reward: str | RewardModel = DEFAULT_REWARD
    held_out: Sequence[str | RewardModel] | None = None
    nfe: int = DEFAULT_NFE
    seed: int = 0
    interpolant: str | Interpolant | None = None
    kernel: str | Kernel | None = None
    steps: int = DEFAULT_STEPS
    grid: str | Grid | None = None
    lookahead: str | Lookahead = DEFAULT_LOOKAHEAD
    finish: bool | None = None
    guidance: str | Guidance | None = None

    def __post_init__(self) -> None:
        self._check_types()
        check_names("held-out reward", [judge for judge in self.judges if not judge.remote])
        for judge in self.judges:
            if judge.relative:
                raise BadSetting(f"'{judge.name}' looks back at what was scored, so that it cannot judge one sample")
        if self.guidance is not None:
            check_differentiable(self.declared_reward)
        self._check_prompt()
        self.cost()

    def __getstate__(self) -> dict[str, Any]:
        return {one.name: vars(self)[one.name] for one in fields(self) if one.name in vars(self)}  # loaded is nothing

    def _check_prompt(self) -> None:
        """Raise what the run would if the model or a reward cannot read the prompt, or lacks a package."""
        if not isinstance(self._flow, Source):
            self._flow.check_prompt(self.prompt)
        for reward in (self.declared_reward, *self.judges):
            check_scorable(reward, self.prompt)

    def _check_types(self) -> None:
        """Raise a BadSetting if an argument is of the wrong type or out of range."""
        checks.text("the prompt", self.prompt, what="a text that says what to make")
        object.__setattr__(self, "model", _chosen("model", as_model(self.model), FlowModel, Source))
        _chosen("method", self.method, Search)
        _chosen("reward", self.reward, RewardModel)
        _chosen("lookahead", self.lookahead, Lookahead)
        _chosen("interpolant", self.interpolant, Interpolant, NoneType)
        _chosen("kernel", self.kernel, Kernel, NoneType)
        _chosen("grid", self.grid, Grid, NoneType)
        _chosen("guidance", self.guidance, Guidance, NoneType)
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
        ):
            object.__setattr__(self, name, value)

    @cached_property
    def _flow(self) -> FlowModel | type[FlowModel] | Source:
        return find_model(self.model) if isinstance(self.model, str) else as_model(self.model)

    @cached_property
    def declared_reward(self) -> RewardModel | type[RewardModel]:
        """The reward, or its class where that says all that is known before it is made."""
        return REWARDS.resolve(self.reward) if isinstance(self.reward, str) else self.reward

    @cached_property
    def judges(self) -> list[RewardModel | type[RewardModel]]:
        """The held-out rewards, in the same way."""
        named = self.declared_reward.held_out if self.held_out is None else self.held_out
        return [REWARDS.resolve(judge) if isinstance(judge, str) else judge for judge in named]

    @property
    def structured(self) -> bool:
        """Whether a reward reads what the prompt asks for (``prompts.asked``)."""
        return any(reward.structured for reward in (self.declared_reward, *self.judges))

    @cached_property
    def search(self) -> Search:
        """The method."""
        return _named(self.method, SEARCHES)

    @cached_property
    def sampler(self) -> Sampler:
        """How particles move."""
        default = default_sampler(self._flow, self.search)
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
        return self.sampler.bind(self._flow)

    @cached_property
    def task(self) -> Task:
        """Model, prompt and rewards; the first use loads the weights of those given by name."""
        model, reward = self._flow, _loaded(self.declared_reward)
        judges = self.judges
        if self.held_out is None and reward.remote:  # what checks it is known only now, and may not be known here
            judges = [REWARDS.resolve(name) for name in reward.held_out if name in REWARDS.names()]
        loaded = tuple(map(_loaded, judges))
        check_names("held-out reward", loaded)
        flow = model if isinstance(model, FlowModel) else load_model(model)
        return Task(flow, self.prompt, reward, loaded)

    def cost(self) -> Spending:
        """What the search will spend at most, known before anything loads."""
        return estimate_cost(self._flow, self.search, self.sampler, self.nfe)

    @property
    def rows_per_nfe(self) -> int | None:
        """Network rows of one NFE; None where the model does not know them before it is loaded."""
        return self._flow.rows_per_nfe

    def baseline_cost(self) -> Spending:
        """What ``baseline`` will spend, outside the budget of the search."""
        return estimate_cost(self._flow, BestOfN(), self._plain(), self.steps)

    def _plain(self) -> Sampler:
        own = self._flow.interpolant
        return Sampler(own, Euler() if isinstance(own, Linear) else DDIM(eta=0.0), steps=self.steps)

    def job(self, seed: int | None = None) -> Job:
        """The search, from the plan's seed or another."""
        return Job(self.task, self.search, self.nfe, self.seed if seed is None else seed, self.sampler)

    def baseline(self, seed: int | None = None) -> Job:
        """No search: ``steps`` steps of the model's own ODE and grid from the search's first noise of the same seed.

        Euler's along the linear interpolant; DDIM's, where eta is 0, along that of a diffusion model.
        """
        return Job(self.task, BestOfN(), self.steps, self.seed if seed is None else seed, self._plain())


def _loaded(spec: RewardModel | type[RewardModel]) -> RewardModel:
    with blamed(f"reward '{spec.name}' cannot be loaded"):
        reward = spec() if isinstance(spec, type) else spec
        check_reward("reward", reward)
    scoring.load(reward)
    return reward


_LOADABLE = "a name, a PipelineSource, a pipeline of diffusers or a pair (velocity, shape)"


def load_model(
    model: str | Source | Any, arguments: Mapping[str, Any] | None = None, *, few_step: bool | None = None
) -> FlowModel:
    """A model that is ready to run, once for many calls of ``generate``.

    Args:
        model: A name, as for ``generate``; a ``PipelineSource``, which says how to load one; a pipeline of diffusers
            that is loaded already, with whatever was done to it (LoRA, quantisation, offload, compilation); or a pair
            of a velocity function and the shape of its states (``FunctionModel``).
        arguments: Of the call of a loaded pipeline: ``{"height": 512, "width": 512, "guidance_scale": 3.5}``.
        few_step: Whether a loaded pipeline is step-distilled; None tells by its name and its scheduler's.

    Raises:
        RollflowError: If it cannot be loaded, is no such pipeline, or does not take the arguments.
    """
    if isinstance(model, str):
        model = find_model(model)
    if isinstance(model, Source | type | tuple):
        if arguments or few_step is not None:
            raise BadSetting("arguments and few_step are of a loaded pipeline; give them to PipelineSource")
        if isinstance(model, tuple):
            return as_model(model)
        if isinstance(model, type) and not issubclass(model, FlowModel):
            raise checks.refused("model", _LOADABLE, model)
        with blamed(f"model '{getattr(model, 'name', model)}' cannot be loaded"):
            loaded: FlowModel = model.load() if isinstance(model, Source) else model()
        return loaded
    if isinstance(model, FlowModel):
        raise BadSetting(f"model '{model.name}' is loaded already; use it as it is")
    if model is None or isinstance(model, bool | int | float | list | dict | set | bytes):
        raise checks.refused("model", _LOADABLE, model)
    return DiffusersModel(model, arguments, few_step=few_step)


def run(
    job: Job,
    observers: Iterable[Observer] = (),
    max_rows: int = DEFAULT_MAX_ROWS,
    max_grad_rows: int = DEFAULT_MAX_GRAD_ROWS,
) -> Result:
    """Run one job; what fails it is raised as it is, not as ``JobsFailed``.

    Raises:
        Interrupted: On Ctrl-C, with the best sample so far.
    """
    return _run(Engine(max_rows, observers, max_grad_rows=max_grad_rows), job)


def _run(engine: Engine, job: Job) -> Result:
    try:
        [result] = engine.run([job])
    except JobsFailed as failed:
        error = failed.failures[0]
    else:
        return result
    raise error


def generate(
    prompt: str,
    *,
    model: str | FlowModel | Source | VelocityPair = DEFAULT_MODEL,
    method: str | Search = DEFAULT_METHOD,
    reward: str | RewardModel = DEFAULT_REWARD,
    held_out: Sequence[str | RewardModel] | None = None,
    nfe: int = DEFAULT_NFE,
    seed: int = 0,
    interpolant: str | Interpolant | None = None,
    kernel: str | Kernel | None = None,
    steps: int = DEFAULT_STEPS,
    grid: str | Grid | None = None,
    lookahead: str | Lookahead = DEFAULT_LOOKAHEAD,
    finish: bool | None = None,
    guidance: str | Guidance | None = None,
    observers: Iterable[Observer] = (),
    max_rows: int = DEFAULT_MAX_ROWS,
    max_grad_rows: int = DEFAULT_MAX_GRAD_ROWS,
) -> Result:
    """The best sample for a prompt that ``nfe`` evaluations of the model can buy.

        result = generate("three cats on grass background", method="rbf", nfe=200)
        result.sample, result.reward, result.held_out, result.spent.nfe

    A model given by name is loaded at every call: for many prompts load it once and pass the object, or run many jobs
    together in an ``Engine``.

    Args:
        prompt: What to make; a ``Prompt`` also says what it asks for, to rewards that count.
        model: The flow model; like all of the next, the name of one or one. Also a pair ``(velocity, shape)`` of a
            function and the shape of its states (``FunctionModel``).
        method: The search.
        reward: What it optimises: also a mixture, ``"sum(parts=caption;aesthetic, weights=1;0.1)"``.
        held_out: Rewards that the search never sees, scored on the result; None is those that the reward names.
        nfe: The budget, in guided velocity evaluations; never exceeded.
        seed: Of all noise; the same seed gives the same sample, to the last bit.
        interpolant: The one sampled along; None is ``"vp"`` for a step-distilled model, else ``"linear"``.
        kernel: How x_t becomes x_s; None is ``"ode"`` for the method ``"paths"``, else ``"sde"``.
        steps: Evaluation times from noise to data.
        grid: Where they lie; None is the model's own, if it has one, else ``"arc"`` along VP and ``"uniform"``.
        lookahead: What clean sample a state shows to the reward.
        finish: Whether the sample is fully denoised; None leaves it to the model.
        guidance: Which way children lean, for differentiable rewards: ``"dps"`` or an object.
        observers: Told of every step.
        max_rows: The most rows in one call of the model.
        max_grad_rows: The same for calls that guidance differentiates, whose memory it bounds.

    Raises:
        RollflowError: On bad input, before anything loads; also what fails the run (``BadModel``, ``BadReward``,
            ``BadWeights``) before any sample was scored. What fails it later is warned of, and is the ``cause`` of the
            interrupted result.
        ValueError: On a prompt that the model cannot read.
        Interrupted: On Ctrl-C, with the best sample so far in ``results``.
    """
    engine = Engine(max_rows, observers, max_grad_rows=max_grad_rows)
    plan = Plan(
        prompt,
        model=model,
        method=method,
        reward=reward,
        held_out=held_out,
        nfe=nfe,
        seed=seed,
        interpolant=interpolant,
        kernel=kernel,
        steps=steps,
        grid=grid,
        lookahead=lookahead,
        finish=finish,
        guidance=guidance,
    )
    result = _run(engine, plan.job())
    if result.cause is not None:
        warnings.warn(
            f"the search ended early, after {result.spent.nfe} of {nfe} NFE; its best sample until then is returned: "
            f"{result.cause}",
            RollflowWarning,
            stacklevel=2,
        )
    return result
