"""Rewards that call another one several times for each sample."""
