"""A number that a template gives as text."""

from __future__ import annotations

from registry_sync.errors import ConfigurationError
from registry_sync.operators.stage import as_text


def as_number(value: object, name: str) -> float | None:
    """``value`` as a number; None for nothing. Raises :class:`ConfigurationError`, which says ``name``."""
    text = as_text(value)
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        raise ConfigurationError(f"{name} is {text[:40]!r}; give a number") from None
