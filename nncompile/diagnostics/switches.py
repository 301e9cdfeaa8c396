"""Environment variables that switch something off."""

import os

_OFF = frozenset({"0", "no", "off", "false"})


def switched_off(variable: str) -> bool:
    """Whether that environment variable is 0, no, off or false, in letters of either case."""
    return os.environ.get(variable, "").strip().lower() in _OFF
