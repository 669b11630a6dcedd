"""The options of a run, each declared once: the command line, ``generate``, arms and records are made from these.

To add an option, add a field. It then appears in ``Plan``, in ``generate``, on the command line, in ``result.json`` and
in journals; a field of ``SamplingOptions`` also appears in the arms of experiments. ``PlanOptions`` repeats them for
type checkers; a test compares the two.

Nothing here imports torch, so that the command line can show its help at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, Field, dataclass, field, fields
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypedDict

from rollflow.defaults import (
    DEFAULT_LOOKAHEAD,
    DEFAULT_MAX_GRAD_ROWS,
    DEFAULT_MAX_ROWS,
    DEFAULT_METHOD,
    DEFAULT_MODEL,
    DEFAULT_NFE,
    DEFAULT_REWARD,
    DEFAULT_SHORTLIST,
)

if TYPE_CHECKING:
    from rollflow.dynamics.grids import Grid
    from rollflow.dynamics.guidance import Guidance
    from rollflow.dynamics.interpolants import Interpolant
    from rollflow.dynamics.kernels import Kernel
    from rollflow.dynamics.lookahead import Lookahead
    from rollflow.models import FlowModel, LoadedPipeline, PipelinePair, Source, VelocityPair
    from rollflow.registry import Registry
    from rollflow.rewards import RewardFunction, RewardModel
    from rollflow.sampler import Sampler
    from rollflow.search import Search


@dataclass(frozen=True)
class Option:
    """Facts about an option that the command line needs in addition to its name and default.

    Args:
        help: Help text.
        kind: Type of its value on the command line.
        registry: Registry in which its value is looked up, as ``module:name``; None if it is not a choice.
        words: Values of a choice that are not looked up, by the words that stand for them.
        repeated: Whether it may be given any number of times.
        unset: Text shown as its default if that is None, such as "by model".
        settings: Whether ``--set`` gives settings of the choice.
    """

    help: str
    kind: type = str
    registry: str | None = None
    words: Mapping[str, bool] = field(default_factory=dict)
    repeated: bool = False
    unset: str | None = None
    settings: bool = False

    def find_registry(self) -> Registry[Any] | None:
        """Import the registry; None if the option is not a choice."""
        if self.registry is None:
            return None
        module, _, name = self.registry.partition(":")
        found: Registry[Any] = getattr(import_module(module), name)
        return found


def option(
    help: str,
    *,
    kind: type = str,
    registry: str | None = None,
    words: Mapping[str, bool] | None = None,
    repeated: bool = False,
    unset: str | None = None,
    settings: bool = False,
) -> dict[str, Option]:
    """Return the metadata of a field that is an option; the arguments are those of ``Option``."""
    return {"option": Option(help, kind, registry, words or {}, repeated, unset, settings)}


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """The options of how particles move, for a plan or for an arm of an experiment.

    Args:
        interpolant: Path that is sampled along; None is variance preserving for a step-distilled model, the paper's
            choice for such (arXiv 2503.19385), and linear for any other.
        kernel: Transition from x_t to x_s; None is the one that the method's paper uses, else the reverse SDE.
        steps: Number of evaluation times from noise to data; None is the method's own choice, else 10.
        grid: Placement of the evaluation times; None is the method's own choice, else the model's own grid along its
            interpolant, if it has one, else ``Arc`` along VP and ``Uniform`` along any other.
        lookahead: Estimate of the clean sample that is shown to the reward.
        guidance: Guidance of the children by the gradient of the reward; None is no guidance.
        finish: Whether the sample is fully denoised inside the budget; None leaves it to the model.
        best_seen: Whether the best clean estimate of the whole search is returned, rather than the best of the last
            time; only without ``finish``.
    """

    interpolant: str | Interpolant | None = field(
        default=None,
        metadata=option(
            "Interpolant between noise and data.",
            registry="rollflow.dynamics.interpolants:INTERPOLANTS",
            unset="by model",
            settings=True,
        ),
    )
    kernel: str | Kernel | None = field(
        default=None,
        metadata=option(
            "Transition kernel.",
            registry="rollflow.dynamics.kernels:KERNELS",
            unset="by method",
            settings=True,
        ),
    )
    steps: int | None = field(
        default=None,
        metadata=option("Number of evaluation times from noise to data.", kind=int, unset="by method"),
    )
    grid: str | Grid | None = field(
        default=None,
        metadata=option(
            "Placement of the evaluation times.",
            registry="rollflow.dynamics.grids:GRIDS",
            unset="by interpolant",
            settings=True,
        ),
    )
    lookahead: str | Lookahead = field(
        default=DEFAULT_LOOKAHEAD,
        metadata=option(
            "Estimate of the clean sample that the reward scores.",
            registry="rollflow.dynamics.lookahead:LOOKAHEADS",
            settings=True,
        ),
    )
    guidance: str | Guidance | None = field(
        default=None,
        metadata=option(
            "Guide the search by the gradient of a differentiable reward.",
            registry="rollflow.dynamics.guidance:GUIDANCE",
            unset="none",
            settings=True,
        ),
    )
    finish: bool | None = field(
        default=None,
        metadata=option("Denoise the sample fully, or return the last clean estimate.", kind=bool, unset="by model"),
    )
    best_seen: bool = field(
        default=False,
        metadata=option(
            "Return the best clean estimate of the whole search instead of the last time's best.", kind=bool
        ),
    )


@dataclass(frozen=True)
class Options(SamplingOptions):
    """Every option of a run; see ``Plan``."""

    prompt: str
    _: KW_ONLY
    model: str | FlowModel | Source | VelocityPair | LoadedPipeline | PipelinePair = field(
        default=DEFAULT_MODEL,
        metadata=option(
            "Name of a model (see 'rollflow models'), repository of a diffusers pipeline (owner/name), or folder.",
            registry="rollflow.models:MODELS",
        ),
    )
    method: str | Search = field(
        default=DEFAULT_METHOD,
        metadata=option("Search method; see 'rollflow methods'.", registry="rollflow.search:SEARCHES", settings=True),
    )
    as_published: bool = field(
        default=False,
        metadata=option(
            "Run the method as the release of arXiv 2503.19385 does, in everything that is not given.", kind=bool
        ),
    )
    reward: str | RewardModel | RewardFunction = field(
        default=DEFAULT_REWARD,
        metadata=option(
            "Reward to optimize (see 'rollflow rewards'), your own (module:function), or a mixture: 'sum(parts=A;B)'.",
            registry="rollflow.rewards:REWARDS",
        ),
    )
    surrogate: str | RewardModel | RewardFunction | bool | None = field(
        default=None,
        metadata=option(
            "Search by the reward's own surrogate (own), by another reward, or by the reward itself (none).",
            registry="rollflow.rewards:REWARDS",
            words={"own": True, "none": False},
            unset="own, none if as published",
        ),
    )
    held_out: Sequence[str | RewardModel | RewardFunction] | None = field(
        default=None,
        metadata=option(
            "Reward that only scores the result; may be repeated.",
            registry="rollflow.rewards:REWARDS",
            repeated=True,
            unset="by reward",
        ),
    )
    choose_by: str | RewardModel | RewardFunction | None = field(
        default=None,
        metadata=option(
            "Second reward, which chooses among the last candidates of the search.",
            registry="rollflow.rewards:REWARDS",
            unset="none",
        ),
    )
    shortlist: int = field(
        default=DEFAULT_SHORTLIST,
        metadata=option("Number of last candidates that --choose-by chooses among.", kind=int),
    )
    nfe: int = field(
        default=DEFAULT_NFE, metadata=option("Budget: number of guided evaluations of the model.", kind=int)
    )
    seed: int = field(default=0, metadata=option("Random seed; the same seed gives the same sample.", kind=int))
    max_rows: int = field(
        default=DEFAULT_MAX_ROWS, metadata=option("Largest batch of one call of the model.", kind=int)
    )
    max_grad_rows: int = field(
        default=DEFAULT_MAX_GRAD_ROWS,
        metadata=option("Largest batch of a call that guidance differentiates.", kind=int),
    )


class PlanOptions(TypedDict, total=False):
    """The options of ``Options`` except for the prompt, for type checkers."""

    model: str | FlowModel | Source | VelocityPair | LoadedPipeline | PipelinePair
    method: str | Search
    as_published: bool
    reward: str | RewardModel | RewardFunction
    surrogate: str | RewardModel | RewardFunction | bool | None
    held_out: Sequence[str | RewardModel | RewardFunction] | None
    choose_by: str | RewardModel | RewardFunction | None
    shortlist: int
    nfe: int
    seed: int
    interpolant: str | Interpolant | None
    kernel: str | Kernel | None
    steps: int | None
    grid: str | Grid | None
    lookahead: str | Lookahead
    guidance: str | Guidance | None
    finish: bool | None
    best_seen: bool
    max_rows: int
    max_grad_rows: int


def options_of(kind: type[Options] = Options) -> dict[str, tuple[Field[Any], Option]]:
    """Return the fields that are options, except for the prompt, each with its ``Option``.

    The fields of ``Options`` and of subclasses come first, those of ``SamplingOptions`` last.
    """
    declared = {one.name: (one, one.metadata["option"]) for one in fields(kind) if "option" in one.metadata}
    last = [name for name in declared if name in _SAMPLING]
    return {name: declared[name] for name in (*(name for name in declared if name not in _SAMPLING), *last)}


_SAMPLING = frozenset(one.name for one in fields(SamplingOptions))


def sampling_of(options: SamplingOptions | Sampler) -> dict[str, Any]:
    """Return the options of ``SamplingOptions`` by name, as arguments of ``Plan``; a ``Sampler`` has the same."""
    return {one.name: getattr(options, one.name) for one in fields(SamplingOptions)}
