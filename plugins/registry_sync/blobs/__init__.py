"""The content-addressed blob store: bytes under their digest, never under it before they are verified.

:func:`registry_sync.hooks.stores.open_blob_store` gives the store of a URL; what every store promises is in
:mod:`registry_sync.blobs.store`, and one suite of tests holds all of them to it.
Nothing here knows registries, databases or Airflow.
"""
