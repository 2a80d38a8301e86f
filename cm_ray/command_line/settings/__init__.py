"""Settings of the commands: dataclasses whose fields are the options.

A module here imports neither torch nor Ray, since it is loaded to parse a command line; numbers that no model
and no cluster could make right are refused here. The settings of a training are `cm_ray.recipes`.
"""
