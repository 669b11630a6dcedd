"""Rewards by models that answer questions about pictures."""
