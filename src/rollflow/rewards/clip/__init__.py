"""Rewards on CLIP and its relatives."""
