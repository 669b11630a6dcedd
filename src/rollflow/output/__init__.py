"""What one run leaves: its folder, pictures, plots and account."""
