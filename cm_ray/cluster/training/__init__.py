"""Training on a cluster: from data to a registered model, by Ray Train."""
