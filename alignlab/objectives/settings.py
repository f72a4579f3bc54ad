"""Ranges of an objective's settings, each refused with the key that sets it."""

from typing import Literal, TypeVar

from alignlab.errors import ConfigError

Range = Literal["> 0", ">= 0", "in [0, 1]", "in (0, 1]", "in [0, 0.5)", "in (0, 0.5)"]
Number = TypeVar("Number", int, float, int | None, float | None)
FITS = {
    "> 0": lambda value: value > 0,  # infinity is
    ">= 0": lambda value: value >= 0,
    "in [0, 1]": lambda value: 0 <= value <= 1,
    "in (0, 1]": lambda value: 0 < value <= 1,
    "in [0, 0.5)": lambda value: 0 <= value < 0.5,
    "in (0, 0.5)": lambda value: 0 < value < 0.5,
}


def checked(owner: object, name: str, value: Number, allowed: Range) -> Number:
    """``value``, if it is ``allowed``; ``name`` is its key below ``model.init_args``.

    ``None`` stands for a setting that is off, and passes.

    Raises:
        ConfigError: The value is not allowed; names the setting.
    """
    if value is not None and not FITS[allowed](value):
        raise ConfigError(
            f"{type(owner).__name__} needs {name} {allowed}, got {value}. "
            f"Set model.init_args.{name}."
        )
    return value
