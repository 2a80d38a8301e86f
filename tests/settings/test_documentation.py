"""Documentation of settings: the string below a field, inherited or not; every setting has one."""

from dataclasses import dataclass

import pytest

from cm_ray import recipes
from cm_ray.networks.architectures import ADM, NCSNpp
from cm_ray.settings.documentation import field_documentation
from cm_ray.settings.tree import fields_of


@dataclass(frozen=True)
class Documented:
    """A class."""

    one: int = 1
    """The first, over
    two lines."""
    two: int = 2
    three: int = 3
    """The third."""


@dataclass(frozen=True)
class Inheriting(Documented):
    """A class that says one thing anew."""

    three: int = 4
    """Another third."""


def test_the_string_below_a_field_is_its_documentation():
    assert field_documentation(Documented, "one") == "The first, over two lines."
    assert field_documentation(Documented, "two") == ""
    assert field_documentation(Documented, "four") == ""


def test_inherited_fields_keep_theirs_unless_they_are_said_anew():
    assert field_documentation(Inheriting, "one") == "The first, over two lines."
    assert field_documentation(Inheriting, "three") == "Another third."
    assert field_documentation(ADM, "channels").startswith("Channels that the levels")
    assert field_documentation(NCSNpp, "fourier_scale").endswith("iCT's is 0.02.")


def undocumented(config, prefix=""):
    for item in fields_of(type(config)):
        value = getattr(config, item.name)
        if not field_documentation(type(config), item.name):
            yield prefix + item.name
        if item.nested:
            yield from undocumented(value, prefix + item.prefix)
        for word, each in item.classes.items():
            if not (each.__doc__ or "").strip():
                yield f"{prefix}{item.name} {word}"


@pytest.mark.parametrize("recipe", recipes.RECIPES)
def test_every_setting_and_every_class_is_documented(recipe):
    assert list(undocumented(recipes.named(recipe))) == []


def test_a_setting_without_documentation_is_found():
    assert list(undocumented(Documented())) == ["two"]
