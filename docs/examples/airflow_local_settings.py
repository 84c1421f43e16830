"""Imports the modules of a sync's tasks once, in the process from which Airflow forks them."""

import registry_sync.db.database
import registry_sync.hooks.clients
import registry_sync.hooks.stores
import registry_sync.oci.client
import registry_sync.pulp.version_documents
import registry_sync.sync.commit_version
import registry_sync.sync.fetch_blobs
import registry_sync.sync.fetch_manifests
import registry_sync.sync.list_tags
import registry_sync.sync.open_run
import registry_sync.sync.plan_blobs  # noqa: F401  imported for later use
