"""A part of a longer list, with the length of the whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class PageRequest:
    """Which part is wanted: ``limit`` items from ``offset``, ordered by a field's name, ``-name`` for descending.

    ``ordering`` empty means the order that suits the list. Stores raise ``InvalidReference`` for unknown fields.
    """

    offset: int = 0
    limit: int = 100
    ordering: str = ""


FIRST_PAGE = PageRequest()


@dataclass(frozen=True)
class Page(Generic[T]):
    """``items`` in order, and how many there are in all (``total_count``), whatever part was asked for."""

    items: tuple[T, ...]
    total_count: int
