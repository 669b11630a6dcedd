"""Default values; this module imports nothing, so that the command line can show its help without waiting for torch."""

DEFAULT_MODEL = "scenes-base"
DEFAULT_METHOD = "auto"
DEFAULT_REWARD = "caption"
FEW_STEP_INTERPOLANT = "vp"  # the paper's, whose grid asks for estimates that are sharp from the start
MANY_STEP_INTERPOLANT = "linear"
DEFAULT_KERNEL = "sde"
DEFAULT_LOOKAHEAD = "tweedie"
DEFAULT_NFE = 200
DEFAULT_STEPS = 10
DEFAULT_SHORTLIST = 8
DEFAULT_MAX_ROWS = 64
DEFAULT_MAX_GRAD_ROWS = 16
