"""What is taken where nothing is said; free of imports, so that the command line's help need not wait for torch."""

DEFAULT_MODEL = "scenes-base"
DEFAULT_METHOD = "rbf"
DEFAULT_REWARD = "count"
DEFAULT_INTERPOLANT = "vp"
DEFAULT_KERNEL = "sde"
DEFAULT_NFE = 200
DEFAULT_STEPS = 10
DEFAULT_MAX_ROWS = 64
