"""Links are followed down and up by the same two queries: all that is reached, and all that is reached by its start."""

from __future__ import annotations

from typing import Any

from sqlalchemy import CTE, select

from registry_sync.db.content.closures import Direction, LinkRows, closure_by_start, closure_of
from registry_sync.db.database import Database
from registry_sync.db.tables import manifests
from registry_sync.domain.manifest_documents import Manifest
from support.metadata import Upstream, image, index, sync


def test_what_is_below_and_what_is_above_with_and_without_where_it_began(database: Database) -> None:
    repository = database.repositories.ensure("app")
    first, second, alone = image("first"), image("second"), image("alone")
    inner = index(first, note="inner")
    outer, missing = index(inner, second, note="outer"), image("nobody has it")
    sparse = index(missing, note="sparse")
    upstream = Upstream()
    for name, tagged, *below in (("outer", outer, inner, first, second), ("sparse", sparse), ("alone", alone)):
        upstream.tag(name, tagged, *below)
    sync(database, repository, upstream)
    names = {"first": first, "second": second, "alone": alone, "inner": inner, "outer": outer, "sparse": sparse}
    name_of = {manifest.digest: name for name, manifest in names.items()}
    links = LinkRows.of_latest(repository.id)

    def starts(*wanted: Manifest) -> Any:
        return select(manifests.c.id).where(manifests.c.digest.in_([manifest.digest for manifest in wanted]))

    def rows(found: CTE) -> list[tuple[str, ...]]:
        """Names of what is found, by the ids in its columns."""
        with database.reading() as connection:
            of_id = {row.id: name_of[row.digest] for row in connection.execute(select(manifests))}
            return sorted(tuple(of_id[value] for value in row) for row in connection.execute(select(found)))

    assert rows(closure_of(starts(inner, sparse), links)) == [("first",), ("inner",), ("sparse",)]
    assert rows(closure_of(starts(first, alone), links, Direction.UP)) == [
        ("alone",), ("first",), ("inner",), ("outer",),
    ]  # fmt: skip
    assert rows(closure_by_start(starts(inner, outer), links)) == [
        ("inner", "first"), ("inner", "inner"),
        ("outer", "first"), ("outer", "inner"), ("outer", "outer"), ("outer", "second"),
    ]  # fmt: skip
    assert rows(closure_by_start(starts(first, second), links, Direction.UP)) == [
        ("first", "first"), ("first", "inner"), ("first", "outer"), ("second", "outer"), ("second", "second"),
    ]  # fmt: skip
