"""Storage that is reached by an address (URL): objects, the lease of a writer, and local copies of folders.

What is written on local disks belongs to `cm_ray.storage`, and what the files of a run mean to `cm_ray.runs`.
"""
