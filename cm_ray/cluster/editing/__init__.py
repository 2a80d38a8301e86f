"""Editing of images: one image in this process, or a folder of images on a cluster."""
