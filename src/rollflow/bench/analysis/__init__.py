"""What a finished experiment says: results, estimates and their intervals."""
