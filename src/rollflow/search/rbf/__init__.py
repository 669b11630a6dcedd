"""Rollover Budget Forcing and its parts: quotas and acceptance."""
