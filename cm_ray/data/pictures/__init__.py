"""Single images as pixels: files by Pillow, uploads, arrays in memory.

A format of image files, or another step from a file to pixels, belongs here; where images lie does not.
"""
