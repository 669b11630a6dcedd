"""Suites of prompts: shipped, published and of one's own."""
