"""Labelled noise, importance weights and resampling."""
