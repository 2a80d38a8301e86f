"""Ray itself: connecting to a cluster, planning its resources, and showing progress on the terminal.

What every job of the cluster needs belongs here.
"""
