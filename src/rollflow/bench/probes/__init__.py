"""Measurements other than experiments: profiles, diversity, and searches for the rare mode of a mixture."""
