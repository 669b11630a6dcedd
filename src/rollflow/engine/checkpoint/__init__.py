"""Checkpoints: the file, what is packed into it and how it is checked when it is read."""
