"""Sampling without a cluster: texts that name samplers, requests by index, pictures of samples.

How samples are requested, drawn and shown belongs here. The samplers' mathematics is `cm_ray.core.samplers`.
"""
