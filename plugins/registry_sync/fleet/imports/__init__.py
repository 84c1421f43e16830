"""Files of other mirroring tools, read as ``mirrors.yaml``: text in, a document and what it could not carry over out.

A module for each tool; :mod:`registry_sync.fleet.imports.formats` recognises them.
"""
