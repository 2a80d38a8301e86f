"""Training on a cluster with Ray Train, from the data to the registered model."""
