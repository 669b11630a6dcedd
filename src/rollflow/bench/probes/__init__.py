"""Measurements other than experiments: reward signal, diversity, and searches for the rare mode of a mixture."""
