"""Recipes: each a function that returns a complete config; a file per data set.

Figures without another source: Song et al. 2023, table 3, whose six columns are cd_ and ct_ of cifar10,
imagenet64 and lsun256.
"""

from __future__ import annotations

from collections.abc import Callable

from cm_ray.errors import UserError, closest
from cm_ray.recipes.ancestors import (
    ncsn_cifar10,
    ncsn_digits,
    ncsnv2_cifar10,
    ncsnv2_digits,
    subvp_cifar10,
    subvp_digits,
    ve_cifar10,
    ve_digits,
    vp_cifar10,
    vp_digits,
)
from cm_ray.recipes.cifar10 import (
    cd_cifar10,
    ct_cifar10,
    ect_cifar10,
    edm_cifar10,
    ict_cifar10,
    meanflow_cifar10,
    pd_cifar10,
    scd_cifar10,
    sct_cifar10,
    tcm_cifar10,
    trigflow_cifar10,
)
from cm_ray.recipes.digits import (
    cd_digits,
    ct_digits,
    ect_digits,
    edm2_digits,
    edm_digits,
    ict_digits,
    meanflow_digits,
    pd_digits,
    scd_digits,
    sct_digits,
    shortcut_digits,
    tcm_digits,
    trigflow_digits,
)
from cm_ray.recipes.imagenet64 import (
    cd_imagenet64,
    ct_imagenet64,
    edm2_imagenet64,
    edm2_l_imagenet64,
    edm2_m_imagenet64,
    edm2_xl_imagenet64,
    edm_imagenet64,
)
from cm_ray.recipes.lsun256 import cd_lsun256, ct_lsun256, edm_lsun256
from cm_ray.recipes.recipe import Recipe

__all__ = [
    "RECIPES",
    "cd_cifar10",
    "cd_digits",
    "cd_imagenet64",
    "cd_lsun256",
    "ct_cifar10",
    "ct_digits",
    "ct_imagenet64",
    "ct_lsun256",
    "ect_cifar10",
    "ect_digits",
    "edm2_digits",
    "edm2_imagenet64",
    "edm2_l_imagenet64",
    "edm2_m_imagenet64",
    "edm2_xl_imagenet64",
    "edm_cifar10",
    "edm_digits",
    "edm_imagenet64",
    "edm_lsun256",
    "ict_cifar10",
    "ict_digits",
    "meanflow_cifar10",
    "meanflow_digits",
    "named",
    "ncsn_cifar10",
    "ncsn_digits",
    "ncsnv2_cifar10",
    "ncsnv2_digits",
    "pd_cifar10",
    "pd_digits",
    "scd_cifar10",
    "scd_digits",
    "sct_cifar10",
    "sct_digits",
    "shortcut_digits",
    "subvp_cifar10",
    "subvp_digits",
    "tcm_cifar10",
    "tcm_digits",
    "trigflow_cifar10",
    "trigflow_digits",
    "ve_cifar10",
    "ve_digits",
    "vp_cifar10",
    "vp_digits",
]

RECIPES: dict[str, Callable[[], Recipe]] = {
    recipe.__name__: recipe
    for recipe in (
        edm_cifar10,
        cd_cifar10,
        ct_cifar10,
        pd_cifar10,
        ict_cifar10,
        ect_cifar10,
        tcm_cifar10,
        meanflow_cifar10,
        trigflow_cifar10,
        scd_cifar10,
        sct_cifar10,
        ncsn_cifar10,
        ncsnv2_cifar10,
        ve_cifar10,
        vp_cifar10,
        subvp_cifar10,
        edm_imagenet64,
        edm2_imagenet64,
        edm2_m_imagenet64,
        edm2_l_imagenet64,
        edm2_xl_imagenet64,
        cd_imagenet64,
        ct_imagenet64,
        edm_lsun256,
        cd_lsun256,
        ct_lsun256,
        edm_digits,
        edm2_digits,
        cd_digits,
        ct_digits,
        pd_digits,
        ict_digits,
        ect_digits,
        tcm_digits,
        meanflow_digits,
        shortcut_digits,
        trigflow_digits,
        scd_digits,
        sct_digits,
        ncsn_digits,
        ncsnv2_digits,
        ve_digits,
        vp_digits,
        subvp_digits,
    )
}
"""Every recipe by name."""


def named(name: str) -> Recipe:
    """Return the recipe called `name`. Raises UserError on an unknown one, with the nearest known."""
    if name not in RECIPES:
        raise UserError(f"There is no recipe {name!r}: {closest(name, list(RECIPES))}")
    return RECIPES[name]()
