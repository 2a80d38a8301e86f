"""Reports for people: Markdown, CSV files and plots of sweeps, searches and comparisons.

A new table or plot is a file here. The numbers come from other rooms, and pictures of samples are in
`cm_ray.sampling`.
"""
