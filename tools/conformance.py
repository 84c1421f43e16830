"""The conformance suite of the OCI distribution specification against the pull server, pull and content discovery.

What is pulled was synced from a real registry: every kind of content, images that are signed in every way. The suite
reads every tag, manifest, blob and list of referrers, without a login, with a robot's, and over HTTPS. Its counts are
printed; a test that fails, or a part that did not run, ends with status 1. ``make clients`` builds the suite.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from registry_sync.domain.digests import Digest
from registry_sync.domain.serving import DistributionSpec
from support.certificates import CertificateAuthority
from support.filling import place
from support.images import RepositoryContent
from support.pull_server import PullServer
from support.registry import RegistryServer
from support.shapes import every_kind, signed_application
from support.signatures import subject_of, with_fallback_tags
from support.syncing import Installation

PROGRAM = Path(".local/go/bin/conformance")
#: The suite's names for what a registry that is only read has to do. "Blob get range" is tried on pushed content alone.
PARTS = (
    "Ping",
    "Blob get",
    "Blob head",
    "Manifest get by digest",
    "Manifest get by tag",
    "Manifest head by digest",
    "Manifest head by tag",
    "Referrers",
    "Tag listing",
)
_OFF = ("PUSH", "BLOBS_DELETE", "MANIFESTS_DELETE", "TAGS_DELETE")
_COUNT = re.compile(r"^  (Disabled|Skip|Pass|FAIL|Error)\.*: +(\d+)$", re.MULTILINE)
_PART = re.compile(r"^  (?P<name>[A-Z][^.:]+?)\.*: +(?P<status>\w+)$", re.MULTILINE)


@dataclass(frozen=True)
class SuiteReport:
    """What one run of the suite found: counts by outcome, and the status of each part."""

    counts: Mapping[str, int]
    parts: Mapping[str, str]
    text: str

    @classmethod
    def parse(cls, text: str) -> SuiteReport:
        """From what the suite prints."""
        counts = {name: int(count) for name, count in _COUNT.findall(text)}
        _, _, listed = text.partition("API conformance:\n")
        listed, _, _ = listed.partition("\n\n")
        parts = {found["name"]: found["status"] for found in _PART.finditer(listed)}
        return cls(counts, parts, text)

    @property
    def problems(self) -> list[str]:
        """Tests that failed, and parts that were not run; empty when all is well."""
        failed = [f"{self.counts.get(name, 0)} tests: {name}" for name in ("FAIL", "Error") if self.counts.get(name, 0)]
        return failed + [
            f"{part}: {self.parts.get(part, 'not reported')}" for part in PARTS if self.parts.get(part) != "Pass"
        ]


def run_suite(
    server: PullServer,
    base_path: str,
    content: RepositoryContent,
    login: tuple[str, str] = ("", ""),
    authority: Path | None = None,
) -> SuiteReport:
    """Runs the suite once. ``login`` is a name and a secret; ``authority`` the certificate to trust over HTTPS."""
    subjects = {subject for manifest in content.manifests.values() if (subject := subject_of(manifest)) is not None}
    with TemporaryDirectory() as results:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("OCI_")},
            **{f"OCI_API_{name}": "false" for name in _OFF},
            "OCI_REGISTRY": server.netloc,
            "OCI_TLS": "enabled" if server.url.startswith("https") else "disabled",
            "OCI_REPO1": base_path,
            "OCI_USERNAME": login[0],
            "OCI_PASSWORD": login[1],
            "OCI_RO_DATA_TAGS": " ".join(content.tags),
            "OCI_RO_DATA_MANIFESTS": " ".join(content.manifests),
            "OCI_RO_DATA_BLOBS": " ".join(content.blobs),
            "OCI_RO_DATA_REFERRERS": " ".join([*sorted(subjects), Digest.of(b"nothing refers to this")]),
            "OCI_RESULTS_DIR": results,
        }
        if authority is not None:
            environment["SSL_CERT_FILE"] = str(authority)
        # Its status says nothing: it is 0 whatever failed, and 2 when its second report fails, after this one.
        done = subprocess.run(
            [str(PROGRAM)], check=False, env=environment, capture_output=True, text=True, timeout=120, cwd=Path.cwd()
        )
    return SuiteReport.parse(done.stdout)


@contextmanager
def _served(folder: Path) -> Iterator[tuple[Installation, RepositoryContent, tuple[str, str]]]:
    kinds, signed = every_kind(seed=31), with_fallback_tags(signed_application(seed=32))
    content = RepositoryContent(
        {**kinds.tags, **signed.tags}, {**kinds.manifests, **signed.manifests}, {**kinds.blobs, **signed.blobs}
    )
    here = Installation.embedded(folder)
    with RegistryServer(folder / "upstream") as upstream:
        place(upstream, "everything", content)
        here.sync("everything", upstream.url, "everything")
    repository = here.database.repositories.by_name("everything")
    for base_path, is_private in (("public", False), ("team/private", True)):
        here.database.distributions.create(
            DistributionSpec(base_path.rpartition("/")[2], base_path, repository.id, is_private=is_private)
        )
    _, secret = here.database.robots.create("conformance", ["team/*"])
    yield here, content, ("conformance", secret)
    here.database.close()


def main() -> int:
    """Prints a line for each run, and what the suite said of a run with problems; 1 when there were any."""
    if not PROGRAM.exists():
        sys.exit(f"error: there is no {PROGRAM}; `make clients` builds it")
    status = 0
    with TemporaryDirectory() as made:
        folder = Path(made)
        with _served(folder) as (_, content, robot):
            certificate = CertificateAuthority(folder / "certificates").server()
            for title, base_path, login, shown in (
                ("without a login", "public", ("", ""), None),
                ("with a robot's login", "team/private", robot, None),
                ("over HTTPS", "team/private", robot, certificate),
            ):
                with PullServer(folder, certificate=shown) as server:
                    report = run_suite(server, base_path, content, login, shown.ca_path if shown else None)
                counts = ", ".join(f"{name.lower()} {report.counts.get(name, 0)}" for name in ("Pass", "FAIL", "Error"))
                print(f"OCI distribution conformance, {title}: {counts}; {len(PARTS)} parts")
                if report.problems:
                    status = 1
                    print("\n".join(report.problems), report.text, sep="\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
