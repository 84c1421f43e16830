"""The content-addressed blob store: bytes are published under their digest, and only after verification.

:func:`registry_sync.hooks.stores.open_blob_store` opens the store at a URL. :mod:`registry_sync.blobs.store` states the
guarantees of every store, and one contract suite tests all stores. This package knows no registries, databases or
Airflow.
"""
