"""Runs in the trackers that a team already looks at: MLflow, Weights & Biases, TensorBoard. Each run is logged once."""
