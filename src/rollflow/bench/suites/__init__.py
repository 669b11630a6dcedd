"""Suites of prompts: shipped, published and user-supplied."""
