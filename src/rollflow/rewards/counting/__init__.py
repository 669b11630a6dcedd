"""Rewards that count what an open-vocabulary detector finds."""
