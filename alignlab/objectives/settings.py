"""Ranges of an objective's settings, each refused with the key that sets it."""

from alignlab.errors import ConfigError


def positive(objective: object, name: str, value: float) -> float:
    """``value`` if it is above 0 (infinity is).

    Raises:
        ConfigError: It is not; names the setting.
    """
    if not value > 0:
        raise _unusable(objective, name, "> 0", value)
    return value


def not_negative(objective: object, name: str, value: float) -> float:
    """``value`` if it is at least 0.

    Raises:
        ConfigError: It is not; names the setting.
    """
    if not value >= 0:
        raise _unusable(objective, name, ">= 0", value)
    return value


def unit_interval(objective: object, name: str, value: float) -> float:
    """``value`` if it is in [0, 1].

    Raises:
        ConfigError: It is not; names the setting.
    """
    if not 0 <= value <= 1:
        raise _unusable(objective, name, "in [0, 1]", value)
    return value


def flip_rate(objective: object, name: str, value: float) -> float:
    """``value`` if it can be the share of flipped labels: in [0, 0.5).

    Raises:
        ConfigError: It cannot; names the setting.
    """
    if not 0 <= value < 0.5:
        raise _unusable(objective, name, "in [0, 0.5)", value)
    return value


def _unusable(objective: object, name: str, wanted: str, value: float) -> ConfigError:
    owner = type(objective).__name__
    return ConfigError(f"{owner} needs {name} {wanted}, got {value}. Set model.init_args.{name}.")
