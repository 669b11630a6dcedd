"""Gaussian mixtures as flow models: everything is known in closed form."""
