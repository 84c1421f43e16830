"""The documentation as a site: the pages of ``docs/`` with a reference that is generated from the code, by Sphinx."""
