"""Bodies that arrive under a ``Content-Encoding`` although none was asked for, undone within a bound."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

from registry_sync.errors import LimitExceeded, TruncatedBody

DECODABLE = frozenset({"gzip", "x-gzip", "deflate"})
_STEP_BYTES = 1024 * 1024


def decoded(chunks: Iterable[bytes], encoding: str, limit: int) -> Iterator[bytes]:
    """The decoded bytes of ``chunks``, in pieces, never more than ``limit`` in all.

    Raises :class:`LimitExceeded`, :class:`TruncatedBody` when the data ends early, and ``zlib.error`` for other data.
    """
    decoder = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32 if encoding != "deflate" else zlib.MAX_WBITS)
    given = 0
    for chunk in chunks:
        waiting = chunk
        while waiting and not decoder.eof:
            piece = decoder.decompress(waiting, _STEP_BYTES)
            waiting = decoder.unconsumed_tail
            given += len(piece)
            if given > limit:
                raise LimitExceeded(f"a body decodes to more than {limit} bytes", limit="decoded body")
            if piece:
                yield piece
    if not decoder.eof:
        raise TruncatedBody("an encoded body ended early")
