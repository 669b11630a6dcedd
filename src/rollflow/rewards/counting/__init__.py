"""Rewards that count objects with an open-vocabulary detector."""
