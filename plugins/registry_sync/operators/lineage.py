"""Lineage for OpenLineage: which upstream or version a task read, and which version it made.

Airflow's provider for OpenLineage asks an operator for it when its task has succeeded. Without the provider nobody
asks, and nothing of it is imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from registry_sync.domain.asset_names import BASE_PATHS, REPOSITORIES
from registry_sync.operators.triggered import TriggeredTask

if TYPE_CHECKING:
    from registry_sync.domain.records import RepositoryVersion
    from registry_sync.domain.remote import RemoteSpec

#: The facet of a version: what :class:`LineageDataset` has as ``facts``.
VERSION_FACET = "registrySync_version"
#: Pairs of one task, so that its event stays small.
MOST_PAIRS = 200


@dataclass(frozen=True)
class LineageDataset:
    """A dataset by OpenLineage's naming: an upstream, a repository, or what is served below a base path.

    ``version`` is the number of a repository's version, None for an upstream and for whatever is the latest at any
    time. ``facts`` are JSON values of the version's facet; empty for none.
    """

    namespace: str
    name: str
    version: int | None = None
    facts: tuple[tuple[str, Any], ...] = field(default=(), compare=False)


def upstream_dataset(remote: RemoteSpec) -> LineageDataset:
    """The repository at a registry: ``oci://registry-1.docker.io`` and ``library/alpine``."""
    return LineageDataset(f"oci://{remote.url.netloc}", str(remote.upstream))


def repository_dataset(repository: str, number: int | None = None) -> LineageDataset:
    """A version of the repository of that name, to be read."""
    return LineageDataset(REPOSITORIES, repository, number)


def version_dataset(
    repository: str, version: RepositoryVersion | None, made_of: LineageDataset | None = None
) -> LineageDataset | None:
    """A version that was made, with its summary and what it was ``made_of``; None for none."""
    if version is None:
        return None
    from registry_sync.pulp.hrefs import href_of

    facts = {
        "href": href_of(version),
        "baseNumber": version.base_number,
        "origin": version.origin.kind.value,
        "counts": version.summary.counts(),
        "holdCount": len(version.holds),
    }
    if made_of is not None:
        facts["upstream"] = f"{made_of.namespace}/{made_of.name}"
    return LineageDataset(REPOSITORIES, repository, version.number, tuple(facts.items()))


def base_path_dataset(base_path: str, number: int | None) -> LineageDataset:
    """What is served below a base path: the repository's version of that number, None for the latest at any time."""
    return LineageDataset(BASE_PATHS, base_path, number)


class LineageTask(TriggeredTask):
    """An operator that records what it read and made, and reports it to OpenLineage."""

    #: What the run of this task read and made so far; a class's own is empty.
    lineage: tuple[tuple[LineageDataset, ...], tuple[LineageDataset, ...]] = ((), ())

    @staticmethod
    def has_lineage_provider() -> bool:
        """Whether Airflow's provider for OpenLineage is installed, so that reading more for it is worth it."""
        from importlib.util import find_spec

        return find_spec("airflow.providers") is not None and find_spec("airflow.providers.openlineage") is not None

    def record_lineage(self, read: LineageDataset, made: LineageDataset | None) -> None:
        """Adds what was read, and what was made of it, None for nothing; no more than 200 times."""
        inputs, outputs = self.lineage
        if len(inputs) >= MOST_PAIRS:
            return
        self.lineage = (*inputs, read), (*outputs, *([made] if made is not None else []))

    def get_openlineage_facets_on_complete(self, _task_instance: Any) -> Any:
        """What Airflow's provider calls: an ``OperatorLineage`` with each dataset once."""
        from airflow.providers.openlineage.extractors import OperatorLineage  # type: ignore[import-not-found]
        from openlineage.client.event_v2 import InputDataset, OutputDataset  # type: ignore[import-not-found]

        inputs, outputs = (dict.fromkeys(datasets) for datasets in self.lineage)
        return OperatorLineage(
            inputs=[InputDataset(each.namespace, each.name, facets=dict(_facets(each))) for each in inputs],
            outputs=[OutputDataset(each.namespace, each.name, facets=dict(_facets(each))) for each in outputs],
        )


def _facets(dataset: LineageDataset) -> Iterator[tuple[str, Any]]:
    from openlineage.client.facet_v2 import DatasetFacet, dataset_version_dataset  # type: ignore[import-not-found]

    if dataset.version is not None:
        yield "version", dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=str(dataset.version))
    if dataset.facts:
        yield VERSION_FACET, DatasetFacet().with_additional_properties(**dict(dataset.facts))
