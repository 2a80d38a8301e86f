"""Settings of the commands that belong to no other room: dataclasses whose fields are the options.

A module here imports neither torch nor Ray, since it is loaded to parse a command line. The settings of an
evaluation, a sweep and the like lie in the rooms that run them, in modules that follow the same rule.
"""
