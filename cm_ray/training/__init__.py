"""Training without Ray: one step, many steps, checkpoints, scores. Usable in a notebook or on a lone GPU."""
