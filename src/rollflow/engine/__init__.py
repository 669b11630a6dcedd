"""The engine: many jobs over one model, metered."""

from rollflow.engine.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from rollflow.engine.engine import Engine, Interrupted, JobsFailed
from rollflow.engine.job import Job, Point, Result, Task, declared
from rollflow.engine.meter import Caps, Meter, Spending
from rollflow.engine.observers import Observer
from rollflow.engine.session import Ended

__all__ = [
    "Caps",
    "Checkpoint",
    "Ended",
    "Engine",
    "Interrupted",
    "Job",
    "JobsFailed",
    "Meter",
    "Observer",
    "Point",
    "Result",
    "Spending",
    "Task",
    "declared",
    "load_checkpoint",
    "save_checkpoint",
]
