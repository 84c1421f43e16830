"""Types of columns that behave alike on both databases, and what all tables belong to."""

from __future__ import annotations

from datetime import datetime, timezone

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, Integer, MetaData, String
from sqlalchemy.types import TypeDecorator, TypeEngine


class UtcDateTime(TypeDecorator[datetime]):
    """A timestamp, aware and in UTC on both sides; SQLite, which has no time zones, stores naive UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        timestamp = value.astimezone(timezone.utc)
        return timestamp.replace(tzinfo=None) if dialect.name == "sqlite" else timestamp

    def process_result_value(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=timezone.utc) if value.tzinfo is None else value.astimezone(timezone.utc)


def plain_text(length: int) -> TypeEngine[str]:
    """Text that is compared and sorted byte by byte on both databases, as registries sort tags."""
    return String(length).with_variant(String(length, collation="C"), "postgresql")


#: Keys of units: 64 bits; on SQLite the rowid.
UNIT_ID = BigInteger().with_variant(Integer(), "sqlite")
NULLABLE_JSON = JSON(none_as_null=True)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)
