"""The search for the time points of multistep sampling: no device, no cluster and no files.

A new search method, or a new way to spend samples on noisy scores, is a file here. Sampling and scoring the
candidates on a cluster is `cm_ray.cluster.time_points`.
"""
