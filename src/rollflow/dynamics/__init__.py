"""How particles move: interpolants, conversions between them, kernels, time grids, look-aheads and guidance."""
