"""Many required blobs in little memory, and the shards that they are fetched in.

A run of a large repository needs hundreds of thousands of blobs. As objects each takes about half a kilobyte, packed
about 50 bytes; the object of one is made when it is read.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from typing import overload

from registry_sync.domain.digests import Digest
from registry_sync.domain.runs import BLOB_OVERHEAD_BYTES, RequiredBlob, deal, shard_count

_PREFIX, _DIGEST_BYTES = "sha256:", 32
_FOREIGN, _STORED, _BROKEN, _CONFIG = 1, 2, 4, 8
#: So many are sorted at once.
_SORTED_COUNT = 16_384


class PackedBlobs(Sequence[RequiredBlob]):
    """``blobs`` in their order. They do not change: each reading of one makes a new, equal object."""

    def __init__(self, blobs: Iterable[RequiredBlob] = ()) -> None:
        self._digests = bytearray()
        self._others: dict[int, Digest] = {}  # those of other algorithms
        self._sizes = array("q")
        self._media_types = array("I")
        self._flags = bytearray()
        types: dict[str, int] = {}
        for blob in blobs:
            self._add(blob, types)
        self._type_names = list(types)

    def _add(self, blob: RequiredBlob, types: dict[str, int]) -> None:
        if blob.digest.startswith(_PREFIX):
            self._digests += bytes.fromhex(blob.digest[len(_PREFIX) :])
        else:
            self._digests += bytes(_DIGEST_BYTES)
            self._others[len(self._sizes)] = blob.digest
        self._sizes.append(blob.size_bytes)
        self._media_types.append(types.setdefault(blob.media_type, len(types)))
        self._flags.append(
            _FOREIGN * blob.is_foreign | _STORED * blob.is_stored | _BROKEN * blob.is_broken | _CONFIG * blob.is_config
        )

    def __len__(self) -> int:
        return len(self._sizes)

    @overload
    def __getitem__(self, index: int) -> RequiredBlob: ...

    @overload
    def __getitem__(self, index: slice) -> PackedBlobs: ...

    def __getitem__(self, index: int | slice) -> RequiredBlob | PackedBlobs:
        if isinstance(index, slice):
            return self.selected(range(*index.indices(len(self))))
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self._at(index % len(self))

    def __iter__(self) -> Iterator[RequiredBlob]:
        return map(self._at, range(len(self)))

    def _at(self, index: int) -> RequiredBlob:
        digest, flags = self._others.get(index), self._flags[index]
        if digest is None:
            start = index * _DIGEST_BYTES
            digest = Digest.of_sha256(self._digests[start : start + _DIGEST_BYTES])
        return RequiredBlob(
            digest,
            self._sizes[index],
            self._type_names[self._media_types[index]],
            is_foreign=bool(flags & _FOREIGN),
            is_stored=bool(flags & _STORED),
            is_broken=bool(flags & _BROKEN),
            is_config=bool(flags & _CONFIG),
        )

    def selected(self, indexes: Sequence[int]) -> PackedBlobs:
        """Those at ``indexes``, in this order."""
        chosen = PackedBlobs()
        for index in indexes:
            chosen._digests += self._digests[index * _DIGEST_BYTES : (index + 1) * _DIGEST_BYTES]
        if self._others:
            chosen._others = {to: self._others[index] for to, index in enumerate(indexes) if index in self._others}
        chosen._sizes = array("q", map(self._sizes.__getitem__, indexes))
        chosen._media_types = array("I", map(self._media_types.__getitem__, indexes))
        chosen._flags = bytearray(map(self._flags.__getitem__, indexes))
        chosen._type_names = self._type_names
        return chosen

    @property
    def sizes_bytes(self) -> Sequence[int]:
        """The size of each blob in bytes."""
        return self._sizes

    @property
    def work_bytes(self) -> int:
        """The bytes of all blobs with the overhead of each."""
        return sum(self._sizes) + len(self) * BLOB_OVERHEAD_BYTES

    def largest_first(self) -> PackedBlobs:
        """The same, the largest first; those of one size stay in their order."""
        return self.selected(array("I", self._by_size()))

    def shards(self, *, max_shards: int, min_shard_bytes: int) -> Sequence[int]:
        """The number of the shard of each blob, by bytes with overhead: the largest first, each into the cheapest.

        Of blobs of one size the first is placed first.
        """
        count = shard_count(len(self), self.work_bytes, max_shards=max_shards, min_cost=min_shard_bytes)
        numbers = array("I", bytes(len(self) * array("I").itemsize))
        order = array("I", self._by_size())
        costs = (self._sizes[index] + BLOB_OVERHEAD_BYTES for index in order)
        for index, number in zip(order, deal(costs, count), strict=True):
            numbers[index] = number
        return numbers

    def _by_size(self) -> Iterator[int]:
        """Indexes of the blobs, the largest first; sorted in parts, for lists of all are larger than all blobs."""
        parts = (range(start, min(start + _SORTED_COUNT, len(self))) for start in range(0, len(self), _SORTED_COUNT))
        ordered = [array("I", sorted(part, key=self._sizes.__getitem__, reverse=True)) for part in parts]
        return merge(*ordered, key=lambda index: -self._sizes[index])
