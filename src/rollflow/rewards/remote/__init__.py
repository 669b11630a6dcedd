"""Rewards computed by another process: client, wire format and server."""
