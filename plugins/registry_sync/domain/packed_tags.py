"""The digests of many tags in little memory.

A repository may have a hundred thousand tags. In a dict each takes about 180 bytes beside its name, packed 33; the
digest of one is made when it is read.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import ItemsView, Iterable, Iterator, Mapping, MutableMapping, Sequence
from itertools import pairwise
from operator import lt

from registry_sync.domain.digests import Digest
from registry_sync.domain.references import TagName

_PREFIX, _DIGEST_BYTES = "sha256:", 32
_ABSENT, _UNKNOWN, _PACKED, _OTHER = range(4)


class PackedTags(MutableMapping[TagName, Digest | None]):
    """Tags with their digests, None for an unknown one: by name, and then what was set beyond ``names``.

    ``names`` are those that may be set at little cost; at first none of them is a tag. Each reading of a digest makes a
    new, equal object.
    """

    def __init__(self, names: Sequence[TagName] = ()) -> None:
        is_sorted = all(lt(one, other) for one, other in pairwise(names))
        self._names = tuple(names) if is_sorted else tuple(sorted(set(names)))  # never a list that another may change
        self._kinds = bytearray(len(self._names))
        self._digests = bytearray(len(self._names) * _DIGEST_BYTES)
        self._others: dict[int, Digest] = {}  # those of other algorithms
        self._more: dict[TagName, Digest | None] = {}

    @classmethod
    def of(cls, tags: Iterable[tuple[TagName, Digest]], known: Sequence[TagName] = ()) -> PackedTags:
        """Those of ``tags``, each once, which are read one after the other; quickest by name.

        Names that are among ``known``, which are in order, are shared with them.
        """
        names: list[TagName] = []
        packed, others = bytearray(), dict[TagName, Digest]()
        for name, digest in tags:
            at = bisect_left(known, name)
            names.append(known[at] if at < len(known) and known[at] == name else name)
            if digest.startswith(_PREFIX):
                packed += bytes.fromhex(digest[len(_PREFIX) :])
            else:
                packed += bytes(_DIGEST_BYTES)
                others[name] = digest
        given = tuple(names)
        made = cls(given)
        if made._names is given:
            made._digests, made._kinds = packed, bytearray([_PACKED]) * len(names)
        else:
            for index, name in enumerate(given):
                at, start = made._index(name), index * _DIGEST_BYTES
                made._kinds[at] = _PACKED
                made._digests[at * _DIGEST_BYTES : (at + 1) * _DIGEST_BYTES] = packed[start : start + _DIGEST_BYTES]
        made.update(others)
        return made

    def _index(self, name: object) -> int:
        """The place of one of the names; -1 for any other."""
        if not isinstance(name, str):
            return -1
        at = bisect_left(self._names, name)
        return at if at < len(self._names) and self._names[at] == name else -1

    def __getitem__(self, name: TagName) -> Digest | None:
        at = self._index(name)
        if at < 0:
            return self._more[name]
        if self._kinds[at] == _ABSENT:
            raise KeyError(name)
        return self._at(at)

    def _at(self, index: int) -> Digest | None:
        kind = self._kinds[index]
        if kind == _PACKED:
            start = index * _DIGEST_BYTES
            return Digest.of_sha256(self._digests[start : start + _DIGEST_BYTES])
        return self._others[index] if kind == _OTHER else None

    def __setitem__(self, name: TagName, digest: Digest | None) -> None:
        at = self._index(name)
        if at < 0:
            self._more[name] = digest
        elif digest is None:
            self._kinds[at] = _UNKNOWN
        elif digest.startswith(_PREFIX):
            self._kinds[at] = _PACKED
            self._digests[at * _DIGEST_BYTES : (at + 1) * _DIGEST_BYTES] = bytes.fromhex(digest[len(_PREFIX) :])
        else:
            self._kinds[at] = _OTHER
            self._others[at] = digest

    def __delitem__(self, name: TagName) -> None:
        at = self._index(name)
        if at < 0:
            del self._more[name]
        elif self._kinds[at] == _ABSENT:
            raise KeyError(name)
        else:
            self._kinds[at] = _ABSENT

    def __iter__(self) -> Iterator[TagName]:
        for name, kind in zip(self._names, self._kinds, strict=True):
            if kind != _ABSENT:
                yield name
        yield from self._more

    def __contains__(self, name: object) -> bool:
        at = self._index(name)
        return name in self._more if at < 0 else self._kinds[at] != _ABSENT

    def items(self) -> ItemsView[TagName, Digest | None]:
        return _Items(self)

    def pairs(self) -> Iterator[tuple[TagName, Digest | None]]:
        """Each tag with its digest; none is looked for by its name."""
        for index, name in enumerate(self._names):
            if self._kinds[index] != _ABSENT:
                yield name, self._at(index)
        yield from self._more.items()

    def __len__(self) -> int:
        return len(self._names) - self._kinds.count(_ABSENT) + len(self._more)

    def differing(self, other: Mapping[TagName, Digest | None]) -> Iterator[TagName]:
        """The tags that have another digest in ``other``, or none, or an unknown one in either."""
        for name, digest in self.pairs():
            if digest is None or other.get(name) != digest:
                yield name


class _Items(ItemsView[TagName, "Digest | None"]):
    """As :meth:`PackedTags.pairs` gives them."""

    _mapping: PackedTags

    def __iter__(self) -> Iterator[tuple[TagName, Digest | None]]:
        return self._mapping.pairs()
