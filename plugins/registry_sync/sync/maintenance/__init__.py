"""Maintenance of the blob store and the database: collect, reclaim, verify, repair."""
