"""The programs that syncs are measured beside bring everything, first, again, and after a tag moved."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.syncs.commands import PROGRAMS
from benchmarks.syncs.contender import PASSES
from benchmarks.syncs.upstreams import LOOPBACK, REDIRECTS, Registry, moved_tag, with_moved_tag

from support.shapes import documented_example


@pytest.mark.parametrize("network", [LOOPBACK, REDIRECTS])
@pytest.mark.parametrize("name", ["oras", "crane", "regsync"])
def test_a_program_brings_everything(tmp_path: Path, name: str, network: str) -> None:
    content, program = documented_example(), PROGRAMS[name]
    assert program.path is not None
    with Registry(tmp_path / "upstream") as registry, registry.reached(network) as upstream:
        registry.place("some/name", content)
        contender = program.make(program.path, upstream.source("some/name"), tmp_path / name)
        contender.empty()
        upstream.forget()
        for which, now in zip(PASSES, (content, content, with_moved_tag(content)), strict=True):
            registry.place("some/name", now)
            usage = contender.sync(which, 60)
            assert usage.peak_mib is not None
            contender.check(now.closure([moved_tag(content)]) if now is not content else content)
        assert ("GET elsewhere" in upstream.counts()) == (network == REDIRECTS)
