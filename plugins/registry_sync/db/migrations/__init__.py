"""Migrations of the metadata database, shipped with the package and run by ``registry_sync.db.schema``."""
