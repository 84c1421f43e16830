"""A yes or no that a template gives as text."""

from __future__ import annotations

from registry_sync.errors import ConfigurationError


def as_flag(value: object, name: str) -> bool:
    """``true`` in any case is a yes; ``false``, ``None`` and nothing are a no.

    Raises :class:`ConfigurationError` for anything else, since a yes may destroy; ``name`` is what it speaks of.
    """
    text = str(value).strip().lower()
    if text not in ("true", "false", "", "none"):
        raise ConfigurationError(f"{name} is {text[:40]!r}; it is true or false")
    return text == "true"
