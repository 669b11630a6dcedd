"""Rewards by judges: vision-language models and people."""
