"""The samplers: from noise to images, as objects, generators of steps and texts; the draws of labels.

A new sampler is a class in `samplers`. Drawing with a model is `cm_ray.drawing`; the search for time points
is `cm_ray.time_points`.
"""
