"""The engine: runs many jobs together, and accounts for what each spends."""

from rollflow.engine.checkpoint.file import load_checkpoint, save_checkpoint
from rollflow.engine.engine import Engine
from rollflow.engine.estimate import default_sampler, estimate_cost
from rollflow.engine.final_choice import FinalChoice
from rollflow.engine.job import Job
from rollflow.engine.meter import Caps, Meter, Spending
from rollflow.engine.observers import Observer
from rollflow.engine.outcome import Ended, Interrupted, JobsFailed, completed
from rollflow.engine.pool import Member, Pool, Round
from rollflow.engine.record import JobRecord
from rollflow.engine.result import Result
from rollflow.engine.state import Checkpoint, Origin, Point, PopulationState, in_lockstep
from rollflow.engine.task import Task

__all__ = [
    "Caps",
    "Checkpoint",
    "Ended",
    "Engine",
    "FinalChoice",
    "Interrupted",
    "Job",
    "JobRecord",
    "JobsFailed",
    "Member",
    "Meter",
    "Observer",
    "Origin",
    "Point",
    "Pool",
    "PopulationState",
    "Result",
    "Round",
    "Spending",
    "Task",
    "completed",
    "default_sampler",
    "estimate_cost",
    "in_lockstep",
    "load_checkpoint",
    "save_checkpoint",
]
