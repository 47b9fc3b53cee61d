"""What trained methods share: trajectories, states, the loop of optimizer steps."""
