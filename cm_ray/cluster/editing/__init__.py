"""Editing folders of images on a cluster."""
