"""Drawing samples from a model without a cluster: requests by index, pictures and arrays of samples.

How samples are requested, drawn, shown and kept belongs here. The samplers are in `cm_ray.sampling`; drawing
with actors of a cluster is `cm_ray.cluster.pool`.
"""
