"""Rewards for the embedded scenes models."""
