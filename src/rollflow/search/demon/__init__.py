"""Demon and its parts: weights of noises."""
