"""The public names of the package and where they come from: what ``rollflow.__init__`` loads at first use."""

from .api import Plan as Plan
from .api import generate as generate
from .api import load_model as load_model
from .dynamics.grids import (
    GRIDS as GRIDS,
)
from .dynamics.grids import (
    Arc as Arc,
)
from .dynamics.grids import (
    Grid as Grid,
)
from .dynamics.grids import (
    Levels as Levels,
)
from .dynamics.grids import (
    Matched as Matched,
)
from .dynamics.grids import (
    Shifted as Shifted,
)
from .dynamics.grids import (
    Uniform as Uniform,
)
from .dynamics.guidance import DPS as DPS
from .dynamics.guidance import GUIDANCE as GUIDANCE
from .dynamics.guidance import Guidance as Guidance
from .dynamics.interpolants import (
    INTERPOLANTS as INTERPOLANTS,
)
from .dynamics.interpolants import (
    VP as VP,
)
from .dynamics.interpolants import (
    Cosine as Cosine,
)
from .dynamics.interpolants import (
    Interpolant as Interpolant,
)
from .dynamics.interpolants import (
    Linear as Linear,
)
from .dynamics.interpolants import (
    Polynomial as Polynomial,
)
from .dynamics.kernels import (
    COEFFICIENTS as COEFFICIENTS,
)
from .dynamics.kernels import (
    DDIM as DDIM,
)
from .dynamics.kernels import (
    GLASS as GLASS,
)
from .dynamics.kernels import (
    KERNELS as KERNELS,
)
from .dynamics.kernels import (
    Clipped as Clipped,
)
from .dynamics.kernels import (
    Constant as Constant,
)
from .dynamics.kernels import (
    Converted as Converted,
)
from .dynamics.kernels import (
    DiffusionCoefficient as DiffusionCoefficient,
)
from .dynamics.kernels import (
    Euler as Euler,
)
from .dynamics.kernels import (
    EulerMaruyama as EulerMaruyama,
)
from .dynamics.kernels import (
    Exponential as Exponential,
)
from .dynamics.kernels import (
    FlowCPS as FlowCPS,
)
from .dynamics.kernels import (
    Heun as Heun,
)
from .dynamics.kernels import (
    Kernel as Kernel,
)
from .dynamics.kernels import (
    Memoryless as Memoryless,
)
from .dynamics.kernels import (
    Power as Power,
)
from .dynamics.kernels import (
    Renoise as Renoise,
)
from .dynamics.kernels import (
    Sigma as Sigma,
)
from .dynamics.kernels import (
    Sine as Sine,
)
from .dynamics.kernels import (
    Tangent as Tangent,
)
from .dynamics.lookahead import Lookahead as Lookahead
from .dynamics.lookahead import ODELookahead as ODELookahead
from .dynamics.lookahead import Tweedie as Tweedie
from .engine import (
    Caps as Caps,
)
from .engine import (
    Checkpoint as Checkpoint,
)
from .engine import (
    Engine as Engine,
)
from .engine import (
    Interrupted as Interrupted,
)
from .engine import (
    Job as Job,
)
from .engine import (
    JobsFailed as JobsFailed,
)
from .engine import (
    Meter as Meter,
)
from .engine import (
    Observer as Observer,
)
from .engine import (
    Point as Point,
)
from .engine import (
    Result as Result,
)
from .engine import (
    Spending as Spending,
)
from .engine import (
    Task as Task,
)
from .engine import (
    estimate_cost as estimate_cost,
)
from .engine import (
    load_checkpoint as load_checkpoint,
)
from .engine import (
    save_checkpoint as save_checkpoint,
)
from .errors import (
    BadCheckpoint as BadCheckpoint,
)
from .errors import (
    BadModel as BadModel,
)
from .errors import (
    BadReward as BadReward,
)
from .errors import (
    BadSetting as BadSetting,
)
from .errors import (
    BadWeights as BadWeights,
)
from .errors import (
    BudgetExceeded as BudgetExceeded,
)
from .errors import (
    BudgetTooSmall as BudgetTooSmall,
)
from .errors import (
    NotDifferentiable as NotDifferentiable,
)
from .errors import (
    RewardUnavailable as RewardUnavailable,
)
from .errors import (
    RollflowError as RollflowError,
)
from .errors import (
    RollflowWarning as RollflowWarning,
)
from .errors import (
    UnknownName as UnknownName,
)
from .models import (
    MODELS as MODELS,
)
from .models import (
    DiffusersModel as DiffusersModel,
)
from .models import (
    FlowModel as FlowModel,
)
from .models import (
    FunctionModel as FunctionModel,
)
from .models import (
    PipelineSource as PipelineSource,
)
from .particles.resampling import (
    RESAMPLING as RESAMPLING,
)
from .particles.resampling import (
    SSP as SSP,
)
from .particles.resampling import (
    Multinomial as Multinomial,
)
from .particles.resampling import (
    Resampling as Resampling,
)
from .particles.resampling import (
    Residual as Residual,
)
from .particles.resampling import (
    Stratified as Stratified,
)
from .particles.resampling import (
    Systematic as Systematic,
)
from .prompts import Prompt as Prompt
from .rewards import REWARDS as REWARDS
from .rewards import FunctionReward as FunctionReward
from .rewards import RewardModel as RewardModel
from .sampler import Sampler as Sampler
from .search import (
    BFS as BFS,
)
from .search import (
    DFS as DFS,
)
from .search import (
    SEARCHES as SEARCHES,
)
from .search import (
    SMC as SMC,
)
from .search import (
    SVDD as SVDD,
)
from .search import (
    Auto as Auto,
)
from .search import (
    Beam as Beam,
)
from .search import (
    BestOfN as BestOfN,
)
from .search import (
    CoDe as CoDe,
)
from .search import (
    Demon as Demon,
)
from .search import (
    EpsilonGreedy as EpsilonGreedy,
)
from .search import (
    Halving as Halving,
)
from .search import (
    RolloverBudget as RolloverBudget,
)
from .search import (
    Search as Search,
)
from .search import (
    SearchOverPaths as SearchOverPaths,
)
from .search import (
    VerifierThreshold as VerifierThreshold,
)
from .search import (
    ZeroOrder as ZeroOrder,
)
from .search.demon.weights import (
    NOISE_WEIGHTS as NOISE_WEIGHTS,
)
from .search.demon.weights import (
    BoltzmannWeights as BoltzmannWeights,
)
from .search.demon.weights import (
    NoiseWeights as NoiseWeights,
)
from .search.demon.weights import (
    TanhWeights as TanhWeights,
)
from .search.keeping import (
    KEEPINGS as KEEPINGS,
)
from .search.keeping import (
    AllCopies as AllCopies,
)
from .search.keeping import (
    EachStream as EachStream,
)
from .search.keeping import (
    Keeping as Keeping,
)
from .search.rbf.acceptance import (
    ACCEPTANCES as ACCEPTANCES,
)
from .search.rbf.acceptance import (
    Acceptance as Acceptance,
)
from .search.rbf.acceptance import (
    AtLeast as AtLeast,
)
from .search.rbf.acceptance import (
    BestSoFar as BestSoFar,
)
from .search.rbf.acceptance import (
    OverParent as OverParent,
)
from .search.rbf.acceptance import (
    OverQuantile as OverQuantile,
)
from .search.rbf.quota import (
    QUOTAS as QUOTAS,
)
from .search.rbf.quota import (
    GainQuota as GainQuota,
)
from .search.rbf.quota import (
    PublishedQuota as PublishedQuota,
)
from .search.rbf.quota import (
    QuotaSchedule as QuotaSchedule,
)
from .search.rbf.quota import (
    UniformQuota as UniformQuota,
)
from .search.rbf.quota import (
    WeightedQuota as WeightedQuota,
)
from .search.smc.potentials import (
    POTENTIALS as POTENTIALS,
)
from .search.smc.potentials import (
    DifferencePotential as DifferencePotential,
)
from .search.smc.potentials import (
    MaxPotential as MaxPotential,
)
from .search.smc.potentials import (
    Potential as Potential,
)
from .search.smc.potentials import (
    SumPotential as SumPotential,
)
from .search.smc.tempering import (
    TEMPERINGS as TEMPERINGS,
)
from .search.smc.tempering import (
    AdaptiveTempering as AdaptiveTempering,
)
from .search.smc.tempering import (
    GeometricTempering as GeometricTempering,
)
from .search.smc.tempering import (
    LinearTempering as LinearTempering,
)
from .search.smc.tempering import (
    NoTempering as NoTempering,
)
from .search.smc.tempering import (
    Tempering as Tempering,
)

__version__: str
