"""Measurements beside experiments: reward signal, diversity and the rare mode of a mixture."""
