"""Outputs of a run: its folder, pictures, plots and summary."""
