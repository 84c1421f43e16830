"""What is kept of instrumented modules measures what SlipCover itself measures, and nothing old is believed."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any

import pytest
import slipcover
from slipcover import branch

from support.kept_instrumentation import NEVER, KeptInstrumentation

pytestmark = pytest.mark.skipif(sys.version_info >= (3, 12), reason="Python itself says there what runs")

MODULE = '''
"""A module with what probes stand in."""
from collections.abc import Iterator

class Sizes:
    limit: int = 10

    def size(self, number: int) -> str:
        """Large or small."""
        if number > self.limit:
            return "large"
        return "small"

def numbers(most: int) -> Iterator[int]:
    for number in range(most):
        if not number:
            continue
        try:
            yield (lambda: number)()
        finally:
            pass

called = [Sizes().size(number) for number in (1, 2)], list(numbers(2))
'''


def new_cover() -> Any:
    return slipcover.Slipcover(branch=True, d_miss_threshold=NEVER)


def measured(cover: Any) -> Any:
    return {Path(name).name: found for name, found in cover.get_coverage()["files"].items()}


def by_slipcover(origin: Path) -> Any:
    """What it measures without us."""
    cover = new_cover()
    tree = branch.preinstrument(ast.parse(origin.read_bytes()))
    exec(cover.instrument(compile(tree, str(origin), "exec")), {})
    return measured(cover)


def by_kept(origin: Path, folder: Path) -> Any:
    """The same with what is kept, as a process of its own would."""
    cover = new_cover()
    namespace: dict[str, Any] = {}
    exec(KeptInstrumentation(cover, folder).code(origin), namespace)
    assert namespace["Sizes"].__annotations__ == {"limit": int}, "compiled as Python compiles it"
    return measured(cover)


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    path = tmp_path / "sizes.py"
    path.write_text(MODULE)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "kept"


def test_what_is_measured_is_the_same_whether_it_is_made_or_read(origin: Path, folder: Path) -> None:
    expected = by_slipcover(origin)
    assert expected["sizes.py"]["missing_lines"] == [11]
    assert by_kept(origin, folder) == expected
    (kept,) = folder.iterdir()
    written = kept.stat().st_mtime_ns
    assert by_kept(origin, folder) == expected
    assert kept.stat().st_mtime_ns == written, "it is read"


def test_a_module_that_runs_twice_in_a_process_counts_together(origin: Path, folder: Path) -> None:
    cover = new_cover()
    kept = KeptInstrumentation(cover, folder)
    exec(kept.code(origin), {})
    assert measured(cover)["sizes.py"]["missing_lines"] == [11]
    namespace: dict[str, Any] = {}
    exec(kept.code(origin), namespace)
    assert kept.code(origin) is kept.code(origin), "its migrations are not instrumented for each database"
    namespace["Sizes"]().size(11)
    assert measured(cover)["sizes.py"]["missing_lines"] == []


def test_a_changed_module_is_instrumented_anew(origin: Path, folder: Path) -> None:
    by_kept(origin, folder)
    origin.write_text(MODULE.replace("(1, 2)", "(1, 20)"))
    assert by_kept(origin, folder) == by_slipcover(origin)
    assert by_kept(origin, folder)["sizes.py"]["missing_lines"] == []
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("left", [b"", b"\xe9", b"something else"])
def test_what_a_killed_process_left_is_not_believed(origin: Path, folder: Path, left: bytes) -> None:
    by_kept(origin, folder)
    (kept,) = folder.iterdir()
    kept.write_bytes(left)
    assert by_kept(origin, folder) == by_slipcover(origin)
