"""The commands of `cm-ray`: a module each, whose `run` takes the parsed settings and prints the results.

A module here is imported after its command line is parsed, and may import anything. A new command is a module
here, its settings, and a line of the table in `cm_ray.command_line.main`.
"""
