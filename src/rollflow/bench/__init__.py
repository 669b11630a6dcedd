"""Measurements: graded prompts, comparisons of searches, the signal that searches live on."""
