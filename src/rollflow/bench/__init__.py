"""Benchmarks: suites of prompts, experiments that compare searches, and measurements of reward and diversity."""
