"""Search spaces for hyperparameter sweeps: one module a question."""
