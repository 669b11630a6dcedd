"""What is left of a run: pictures and an account of it, from an observer of the engine."""

from rollflow.files.atomic import check_folder, write
from rollflow.report.checkpoints import CheckpointFile
from rollflow.report.outputs import summary, write_run
from rollflow.report.pictures import picture
from rollflow.report.recorder import Frame, Recorder, Scored

__all__ = ["CheckpointFile", "Frame", "Recorder", "Scored", "check_folder", "picture", "summary", "write", "write_run"]
