"""``PublishVersionOperator``: the version that clients pull under a base path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from registry_sync.operators.lineage import LineageTask, base_path_dataset, repository_dataset
from registry_sync.operators.stage import RegistryRetryPolicy, Stage, open_stage
from registry_sync.operators.task_values import as_flag, as_text
from registry_sync.operators.version_outputs import emit_published, publication_outlets

if TYPE_CHECKING:
    from airflow.sdk import Context

    from registry_sync.sync.publish_version import PublishedChange, PublishRequest

#: What ``number`` says in place of a number for the latest version at the time of each pull.
LATEST = "latest"


class PublishVersionOperator(LineageTask):
    """Points a distribution at a version of a repository: what clients pull under its base path from then on.

    A promotion without copying, and with an earlier number a rollback: one row is written, and nothing when clients get
    that version already. The version is kept as long as it is served, whatever the repository retains.

    :param base_path: what clients pull, such as ``stable/alpine``; a distribution of that name is created when there is
        none
    :param repository: name of the repository
    :param number: number of the version to serve always, or ``latest`` for the latest one at any time
    :param private: whether only those who log in may pull it; counts when the distribution is created
    :param replace_repository: whether the distribution may serve another repository than before
    :param trust_triggers: whether a user who triggers the run may set all of this in its parameters
    """

    template_fields: Sequence[str] = ("base_path", "repository", "number", "private", "replace_repository")
    ui_color = "#d8f0d8"

    def __init__(
        self,
        *,
        base_path: str,
        repository: str,
        number: int | str,
        private: bool | str = True,
        replace_repository: bool | str = False,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("retry_policy", RegistryRetryPolicy())
        kwargs.setdefault("outlets", publication_outlets())
        super().__init__(**kwargs)
        self.base_path = base_path
        self.repository = repository
        self.number = number
        self.private = private
        self.replace_repository = replace_repository

    def execute(self, context: Context) -> dict[str, Any]:
        """``distribution`` in the documented shape, ``is_changed``, and ``previous_number``.

        That is the number to publish again to take the change back: ``latest`` where it followed the latest version,
        and None where the distribution is new or served another repository, or nothing.
        """
        from registry_sync.pulp.repository_documents import DistributionDocument
        from registry_sync.sync.publish_version import publish_version, would_change

        with open_stage(context) as stage:
            request = self._request(stage)
            if would_change(stage.database, request):
                self.require_author(context, stage.settings, f"what is pulled as {request.base_path!r}")
            published = publish_version(stage.database, request)
        distribution = published.distribution
        what = f"version {request.number}" if request.number is not None else "the latest version"
        now = "serves" if published.is_changed else "served already"
        self.log.info("%s %s %s of %s", distribution.base_path, now, what, request.repository.name)
        made = base_path_dataset(distribution.base_path, request.number) if published.is_changed else None
        self.record_lineage(repository_dataset(request.repository.name, request.number), made)
        emit_published(context, request.repository.name, distribution, is_changed=published.is_changed)
        return {
            "distribution": DistributionDocument.model_validate(distribution).model_dump(mode="json"),
            "is_changed": published.is_changed,
            "previous_number": _previous_number(published, request),
        }

    def _request(self, stage: Stage) -> PublishRequest:
        from registry_sync.domain.serving import base_path_of
        from registry_sync.errors import InvalidReference
        from registry_sync.operators.version_outputs import find_number
        from registry_sync.sync.publish_version import PublishRequest

        base_path = base_path_of(as_text(self.base_path) or "")
        repository = stage.database.repositories.by_name(as_text(self.repository) or "")
        wanted = as_text(self.number)
        if wanted is None:  # such as the empty result of a template
            raise InvalidReference(f"number: give the version to publish, or {LATEST!r} for the latest at any time")
        return PublishRequest(
            base_path,
            repository,
            None if wanted == LATEST else find_number(stage, repository, wanted),
            is_private=as_flag(self.private, "private"),
            replace_repository=as_flag(self.replace_repository, "replace_repository"),
        )


def _previous_number(published: PublishedChange, request: PublishRequest) -> int | str | None:
    before = published.before
    if before is None or before.repository_id != request.repository.id:
        return None
    return LATEST if before.version_number is None else before.version_number
