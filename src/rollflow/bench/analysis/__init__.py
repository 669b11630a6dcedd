"""Analysis of an experiment: its results, and estimates with their intervals."""
