"""Who asks, as the operator of a registry finds it in a log (RFC 9110 section 10.1.5)."""

from __future__ import annotations

import re

from registry_sync import __version__

_CONTACT = re.compile(r"(?:https?://[\x21-\x27\x2a-\x7e]+|[\x21-\x27\x2a-\x7e]+@[\x21-\x27\x2a-\x7e]+)")
LONGEST_CONTACT = 200
CONTACT_SHAPE = "a mail address or an http URL, without blanks and parentheses"


def is_contact(text: str) -> bool:
    """Whether ``text`` is a mail address or an http URL that can stand in a header's comment."""
    return len(text) <= LONGEST_CONTACT and _CONTACT.fullmatch(text) is not None


def user_agent(contact: str | None = None) -> str:
    """The ``User-Agent`` of every request, the same from release to release but for the number.

    ``contact`` says whom to write to. Raises :class:`ValueError` for what :func:`is_contact` refuses.
    """
    if contact is not None and not is_contact(contact):
        raise ValueError(f"a contact is {CONTACT_SHAPE}")
    whom = f"; +{contact}" if contact else ""
    return f"registry-sync/{__version__} (Apache Airflow{whom})"
