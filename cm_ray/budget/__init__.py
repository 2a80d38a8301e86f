"""Cost of a training before it starts: memory, network evaluations and time of a step.

Estimates and measurements of what a recipe needs belong here. What a run writes is `cm_ray.runs`.
"""
