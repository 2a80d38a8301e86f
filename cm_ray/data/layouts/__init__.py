"""Image files in folders and in zip archives: which are read, and the split and the class of each.

Another layout of folders, or another file that gives labels, belongs here.
"""
