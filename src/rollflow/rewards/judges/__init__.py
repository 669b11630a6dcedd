"""Rewards given by judges: vision-language models and people."""
