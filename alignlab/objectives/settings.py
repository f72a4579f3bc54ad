"""Ranges of an objective's settings, each refused with the key that sets it."""

from typing import Literal

from alignlab.errors import ConfigError

Range = Literal["> 0", ">= 0", "in [0, 1]", "in [0, 0.5)"]
FITS = {
    "> 0": lambda value: value > 0,  # infinity is
    ">= 0": lambda value: value >= 0,
    "in [0, 1]": lambda value: 0 <= value <= 1,
    "in [0, 0.5)": lambda value: 0 <= value < 0.5,
}


def checked(objective: object, name: str, value: float, allowed: Range) -> float:
    """``value``, if it is ``allowed``.

    Raises:
        ConfigError: It is not; names the setting.
    """
    if not FITS[allowed](value):
        raise ConfigError(
            f"{type(objective).__name__} needs {name} {allowed}, got {value}. "
            f"Set model.init_args.{name}."
        )
    return value
