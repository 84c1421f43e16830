"""The configuration of Sphinx. It runs without a network: no font, script or inventory is downloaded."""

from __future__ import annotations

import registry_sync

project = "registry-sync"
author = "registry-sync"
copyright = "The authors of registry-sync, Apache License 2.0"  # noqa: A001  the name is Sphinx's
version = release = registry_sync.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["examples"]
# Titles have the anchors of code hosts, which the pages and their tests use.
myst_heading_anchors = 4
myst_enable_extensions = ["attrs_inline"]
# Blocks of JSON and configuration are abbreviated with "…", which no lexer knows.
suppress_warnings = ["misc.highlighting_failure"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
# Members of classes are on the page, and would fill its table of contents.
toc_object_entries = False
python_use_unqualified_type_names = True
add_module_names = False

html_theme = "furo"
html_title = f"registry-sync {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}
