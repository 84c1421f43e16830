"""What a template field gives, as text or already as a value, read as what an operator needs."""

from __future__ import annotations

from registry_sync.errors import ConfigurationError


def as_list(value: object) -> tuple[str, ...] | None:
    """A template's text, ``a, b``, or a list, as a tuple; None for nothing.

    A template field gives text; tags and globs hold no commas. Raises :class:`ConfigurationError` for anything else.
    """
    if value is None:
        return None
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, list | tuple):
        raise ConfigurationError(f"give text with commas or a list, and not {type(value).__name__}")
    return tuple(text for text in map(as_text, value) if text is not None) or None


def as_text(value: object) -> str | None:
    """A template's text without blanks around it; None when nothing is left, or for ``None``.

    Raises :class:`ConfigurationError` for what holds several values, as native templates may give it.
    """
    if isinstance(value, list | tuple | set | frozenset | dict):
        raise ConfigurationError(f"give one text, and not {type(value).__name__}: {str(value)[:80]!r}")
    text = "" if value is None else str(value).strip()
    return None if text in ("", "None") else text


def as_flag(value: object, name: str) -> bool:
    """``true`` in any case is a yes; ``false``, ``None`` and nothing are a no.

    Raises :class:`ConfigurationError` for anything else, since a yes may destroy; ``name`` is what it speaks of.
    """
    text = str(value).strip().lower()
    if text not in ("true", "false", "", "none"):
        raise ConfigurationError(f"{name} is {text[:40]!r}; it is true or false")
    return text == "true"


def as_number(value: object, name: str) -> float | None:
    """``value`` as a number; None for nothing. Raises :class:`ConfigurationError`, which says ``name``."""
    text = as_text(value)
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        raise ConfigurationError(f"{name} is {text[:40]!r}; give a number") from None
