"""The packages of the wheel: cm_ray, and search_spaces/ as a part of it. All else is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["cm_ray", "cm_ray.*"]), "cm_ray.search_spaces"],
    package_dir={"cm_ray.search_spaces": "search_spaces"},
)
