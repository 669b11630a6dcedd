"""Checkpoints: the file format, the packing of states, and checks of what is read."""
