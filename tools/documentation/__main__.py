"""``python -m documentation FOLDER``: builds the site in ``FOLDER/html``; any warning of Sphinx fails it.

``DOCS_SOURCE_URL`` is the address of the checkout's files, such as ``https://code.example/registry-sync/blob/main``;
without it they are named and not linked.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from documentation.pages import CHECKOUT, stage


def main(folder: Path) -> int:
    """The exit status of Sphinx. It uses a temporary ``AIRFLOW_HOME``."""
    with tempfile.TemporaryDirectory(prefix="registry-sync-docs-") as home:
        for name in [name for name in os.environ if name.startswith("AIRFLOW")]:
            del os.environ[name]
        os.environ |= {"AIRFLOW_HOME": home, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
        from sphinx.cmd.build import build_main

        source = folder / "source"
        shutil.rmtree(folder, ignore_errors=True)
        stage(source, source_url=os.environ.get("DOCS_SOURCE_URL") or None)
        settings = CHECKOUT / "tools" / "documentation"
        options = ["--fail-on-warning", "--keep-going", "--quiet", "--conf-dir", str(settings)]
        status = build_main([*options, "-d", str(folder / "doctrees"), str(source), str(folder / "html")])
    if status == 0:
        print(f"The documentation is at {(folder / 'html' / 'index.html').resolve().as_uri()}")
    return int(status)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
