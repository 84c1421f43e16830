"""Registries that behave as well-known ones do, where these differ from the specification and from each other.

:class:`~support.lookalikes.quirks.LookAlike` says in values how one behaves, ``known`` has one for each that a sync
must cope with, and :class:`~support.lookalikes.server.LookAlikeServer` acts on them: a registry, a token service and
a storage host at three loopback addresses, over TLS. They serve whatever content a test gives them, and note what a
good client does not do.
"""
