"""Training without Ray: the step, the loop of steps, and `Trainer` for a notebook or a single machine.

A new part of a training step belongs here. Training on a cluster is in `cm_ray.cluster.training`; the
methods are in `cm_ray.core`.
"""
