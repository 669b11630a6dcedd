"""Sequential Monte Carlo and its parts: potentials, tempering, weights."""
