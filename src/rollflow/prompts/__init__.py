"""What a prompt asks for, in numbers."""

from rollflow.prompts.prompt import NUMBERS, Prompt, asked, read_ask

__all__ = ["NUMBERS", "Prompt", "asked", "read_ask"]
