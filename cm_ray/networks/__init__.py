"""The networks: what has weights."""
