"""Reports for people: Markdown, CSV files and plots of sweeps, searches and comparisons.

A new table or plot is a file here. The numbers come from other rooms; pictures of samples belong to
`cm_ray.sampling`.
"""
