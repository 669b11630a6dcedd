"""Rewards based on CLIP and related networks."""
