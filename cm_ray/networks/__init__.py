"""Networks with weights: U-Nets, LPIPS, models in this project's format and, in `formats`, in others.

A new network or a new learned distance belongs here. Feature extractors of scores are in `cm_ray.metrics`.
"""
