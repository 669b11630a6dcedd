"""Gaussian mixtures as flow models, with every quantity in closed form."""
