"""``set_label/`` and ``unset_label/`` of repositories, remotes and distributions: one label, without the others.

As in Pulp they are no tasks; the response is the label.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, StringConstraints

from registry_sync.api.access import CHANGE
from registry_sync.api.dependencies import Router, UsedDatabase
from registry_sync.api.fields import MAX_LABELS, GivenDocument, PathUuid, printable
from registry_sync.api.problems import NOT_FOUND, InvalidField
from registry_sync.db.database import Database

Key = Annotated[str, StringConstraints(min_length=1, max_length=255), AfterValidator(printable)]
Value = Annotated[str, StringConstraints(max_length=1_000), AfterValidator(printable)]


class LabelToSet(GivenDocument):
    """A label; null as its value is an empty text."""

    key: Key
    value: Value | None


class LabelToUnset(GivenDocument):
    """The key of a label."""

    key: Key


class LabelDocument(BaseModel):
    """A label as it was set, or had been."""

    key: str
    value: str | None


Change = Callable[[Any], Any]
_CHANGES: Mapping[str, Callable[[Database, str, Change], object]] = {
    "repositories": lambda database, record_id, change: database.repositories.change(record_id, change),
    "remotes": lambda database, record_id, change: database.remotes.change(record_id, change),
    "distributions": lambda database, record_id, change: database.distributions.change(record_id, change),
}


def _add_routes(router: Router, kind: str) -> None:
    change = _CHANGES[kind]
    path = f"/{kind}/docker/docker/{{record_id}}"

    def set_label(database: UsedDatabase, record_id: PathUuid, given: LabelToSet) -> LabelDocument:
        """Sets a label, and keeps the others."""
        value = given.value or ""

        def with_label(spec: Any) -> Any:
            labels = {**spec.labels, given.key: value}
            if len(labels) > MAX_LABELS:
                raise InvalidField("key", f"There are at most {MAX_LABELS} labels.")
            return replace(spec, labels=labels)

        change(database, record_id, with_label)
        return LabelDocument(key=given.key, value=value)

    def unset_label(database: UsedDatabase, record_id: PathUuid, given: LabelToUnset) -> LabelDocument:
        """Removes a label, and keeps the others; its value is null when there was none."""
        before: dict[str, str] = {}

        def without_label(spec: Any) -> Any:
            before.update(spec.labels)
            return replace(spec, labels={key: value for key, value in spec.labels.items() if key != given.key})

        change(database, record_id, without_label)
        return LabelDocument(key=given.key, value=before.get(given.key))

    for work in (set_label, unset_label):
        router.add_api_route(
            f"{path}/{work.__name__}/",
            work,
            methods=["POST"],
            name=f"{work.__name__}_of_{kind}",
            status_code=201,
            dependencies=CHANGE,
            responses=NOT_FOUND,
            tags=[kind],
            description=work.__doc__ or "",
        )


router = Router()
for _kind in _CHANGES:
    _add_routes(router, _kind)
