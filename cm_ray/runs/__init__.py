"""The files that a run leaves: its directory and its checkpoints.

A new file of a run directory, or another form of checkpoint, belongs here. Writing files safely is
`cm_ray.storage`; what training writes into them is decided in `cm_ray.training` and `cm_ray.cluster`.
"""
