"""A reward behind HTTP: see docs/rewards/server.md. Nothing here is imported before a server or a client needs it."""
