"""Rewards computed by another process: the client, the wire format and the server."""
