"""Custom networks as a setting: a class in an importable module."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cm_ray.errors import SettingError, UserError, require
from cm_ray.networks.architectures import Network, check_label_dropout
from cm_ray.own_code import CODE, allow, found, name_of
from cm_ray.settings.choices import choice

if TYPE_CHECKING:
    from torch import nn


@choice(Network, "custom")
@dataclass(frozen=True, slots=True, kw_only=True)
class Custom(Network):
    """A custom network: a subclass of torch.nn.Module, given by its import path.

    It is constructed as Class(shape, classes), with the shape (c, h, w) of the images and the number of
    classes (0 without labels), and is called as network(x, time) or network(x, time, labels).
    """

    path: str = field(default="", metadata=CODE)
    """Import path of the class: package.module:Class."""
    conditional: bool = False
    """Condition on the class labels of the data."""
    dropout: float = 0.0
    """Probability of dropout in the network. If it is positive, student and target get the same mask."""
    label_dropout: float = 0.0
    """Share of the labels that are replaced by -1, the null class, in training; 0: the network has none."""

    def __post_init__(self) -> None:
        """Raise SettingError on a path of another form than package.module:Class, or a share out of range."""
        module, _, name = self.path.partition(":")
        problem = f"must be package.module:Class, not {self.path!r}"
        require(bool(module) and bool(name), "path", problem)
        check_label_dropout(self)

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """Return the network.

        Raises UserError when the class does not exist, is not an nn.Module, or was not named: see
        `cm_ray.own_code`.
        """
        from torch import nn

        cls = self._found()
        if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
            raise UserError(f"network.path {self.path} is not a subclass of torch.nn.Module; give one.")
        try:
            network: nn.Module = cls(shape, classes)
        except TypeError as error:
            raise UserError(f"{self.path} is made as Class(shape, classes), which fails: {error}.") from error
        return network

    def _found(self) -> Any:
        try:
            return found(self.path)
        except (ImportError, AttributeError, ValueError) as error:
            raise SettingError(
                "network.path", f"{self.path} cannot be imported ({error}); install it on every node"
            ) from error


def custom_network(cls: type, *, conditional: bool = False, dropout: float = 0.0) -> Custom:
    """Return the setting for a network class, which is thereby named: see `cm_ray.own_code`.

    dropout: must be positive if the network uses dropout, so that its masks are seeded. Raises UserError on a
    class that is defined in a function.
    """
    from torch import nn

    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise UserError(f"network must be a subclass of torch.nn.Module, the class itself, not {cls!r}.")
    path = name_of(cls)
    if "<locals>" in path:
        raise UserError(f"{path} is defined in a function; define the network at the top level of a module.")
    allow(cls)
    return Custom(path=path, conditional=conditional, dropout=dropout)
