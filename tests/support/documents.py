"""Code blocks of documents, so that tests can run the commands that readers are given."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class CodeBlock:
    """A block of a document. ``language`` is the word behind its fence."""

    language: str
    text: str


def code_blocks(path: str) -> list[CodeBlock]:
    """The fenced blocks of a document below ``docs``, in order."""
    return [CodeBlock(*match.groups()) for match in _BLOCK.finditer((DOCS / path).read_text(encoding="utf-8"))]
