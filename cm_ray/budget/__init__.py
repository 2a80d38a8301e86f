"""Cost of a training before it starts: memory and floating-point operations.

Estimates and measurements of a recipe's needs belong here. The files that a run writes are in `cm_ray.runs`.
"""
