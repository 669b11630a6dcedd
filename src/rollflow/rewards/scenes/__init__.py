"""Rewards of the embedded scenes models."""
