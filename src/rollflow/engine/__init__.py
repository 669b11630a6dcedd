"""The engine: many jobs over one model, metered."""

from rollflow.engine.checkpoint import load_checkpoint, save_checkpoint
from rollflow.engine.engine import Engine, Interrupted, JobsFailed, completed
from rollflow.engine.job import Job, Result, Task, declared, default_sampler
from rollflow.engine.meter import Caps, Meter, Spending
from rollflow.engine.observers import Observer
from rollflow.engine.session import Ended
from rollflow.engine.state import Checkpoint, Point, Standing, abreast

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
    "Standing",
    "Task",
    "abreast",
    "completed",
    "declared",
    "default_sampler",
    "load_checkpoint",
    "save_checkpoint",
]
