"""What a commit costs when one tag of a large repository moves, against the size of what stays.

Run it as ``python benchmarks/commit_difference.py [--postgresql] [--tags 250 3000]``. Each row fills a repository
with tags (an index of four images each, 33 units a tag), then moves one tag a few times. The promise: the commit
costs what differs, so the last column hardly grows with the first.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "plugins"), str(ROOT / "tests")]

from registry_sync.db.database import Database  # noqa: E402  # found through the two folders above
from support.metadata import Upstream, image, index, open_run, play_stages  # noqa: E402  # as above
from support.postgres import running_postgres  # noqa: E402  # as above

IMAGES_PER_INDEX = 4
LAYERS_PER_IMAGE = 6
MOVES = 5


@contextmanager
def opened_databases(*, is_postgresql: bool) -> Iterator[Iterator[Database]]:
    """Empty, migrated databases, as many as are asked for."""
    with ExitStack() as stack:
        server = stack.enter_context(running_postgres()) if is_postgresql else None
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))

        def databases() -> Iterator[Database]:
            number = 0
            while True:
                number += 1
                url = server.make_database(f"bench_{number}") if server else f"sqlite:///{folder}/{number}.db"
                database = stack.enter_context(Database.connect(url))
                database.upgrade()
                yield database

        yield databases()


def tag(upstream: Upstream, name: str, generation: int) -> None:
    """An index of images whose layers are their own but for one."""
    images = [
        image("base", *(f"{name} {generation} {number} {layer}" for layer in range(LAYERS_PER_IMAGE - 1)))
        for number in range(IMAGES_PER_INDEX)
    ]
    upstream.tag(name, index(*images, note=f"{name} {generation}"), *images)


def measure(database: Database, tag_count: int) -> tuple[int, dict[str, float]]:
    """How many units the version has, and seconds by step; those of the moves are medians."""
    repository = database.repositories.ensure("bench")
    upstream = Upstream()
    for number in range(tag_count):
        tag(upstream, f"tag-{number}", 0)
    seconds: dict[str, list[float]] = {}

    def timed(name: str, started_at: float) -> None:
        seconds.setdefault(name, []).append(time.perf_counter() - started_at)

    for move in range(MOVES + 1):
        prefix = "first " if move == 0 else ""
        run = open_run(database, repository)
        started_at = time.perf_counter()
        play_stages(database, run, upstream)
        timed(f"{prefix}stages", started_at)
        started_at = time.perf_counter()
        version = database.versions.commit(run.id).version
        timed(f"{prefix}commit", started_at)
        assert version is not None
        unit_count = sum(version.summary.present.values())
        tag(upstream, "tag-0", move + 1)
    return unit_count, {name: median(values) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tags", type=int, nargs="+", default=[250, 1000, 3000])
    parser.add_argument("--postgresql", action="store_true", help="on PostgreSQL instead of SQLite")
    options = parser.parse_args()
    print(f"{'units':>9} {'first stages s':>15} {'first commit s':>15} {'stages s':>9} {'commit s':>9}")
    with opened_databases(is_postgresql=options.postgresql) as databases:
        for tag_count, database in zip(options.tags, databases, strict=False):
            units, seconds = measure(database, tag_count)
            print(
                f"{units:>9,} {seconds['first stages']:>15.2f} {seconds['first commit']:>15.2f} "
                f"{seconds['stages']:>9.3f} {seconds['commit']:>9.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
