"""The server of remote rewards: see docs/rewards/server.md."""
