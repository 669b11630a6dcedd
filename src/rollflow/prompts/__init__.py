"""Prompts, and the counts of things that they ask for."""

from rollflow.prompts.plurals import plural, singular
from rollflow.prompts.prompt import NUMBERS, Prompt, asked, read_ask

__all__ = ["NUMBERS", "Prompt", "asked", "plural", "read_ask", "singular"]
