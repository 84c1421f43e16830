"""What a store needs of the database: transactions. A store does not import the database that it is part of."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from sqlalchemy import Connection


class Transactions(Protocol):
    """Opens transactions; errors of the database come out of them as ours."""

    def reading(self) -> AbstractContextManager[Connection]:
        """A transaction that only reads."""
        ...

    def writing(self) -> AbstractContextManager[Connection]:
        """A transaction that may write."""
        ...
