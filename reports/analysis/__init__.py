"""What is true of a run: statistics of its records."""
