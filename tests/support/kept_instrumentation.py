"""Modules that SlipCover measures are instrumented once, and kept for other processes and runs, as compiled ones are.

SlipCover parses and instruments each module anew wherever it is imported: seven seconds of a core in each process of
the tests for this package, and its migrations again for each database that is migrated.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import marshal
import os
import sys
import threading
from pathlib import Path
from types import CodeType, ModuleType, SimpleNamespace
from typing import Any

import slipcover
from slipcover import branch, importer

#: More probes than are ever met again, so that none is removed in mid-run.
NEVER = 2**31 - 1
#: What stands among the constants of a kept module, in a tuple, for SlipCover's function that a probe calls; and with
#: the number of a line or the two of a branch, for the probe of it.
_MARK = "\0probe"
_placing = threading.Lock()


class KeptInstrumentation:
    """Instruments modules for ``cover``, which measures branches and removes no probe.

    What was made of a module is kept in ``folder``, in a file by the module's path, until the module's source, Python
    or SlipCover is another. Without effect from Python 3.12 on, where Python itself says what runs.
    """

    def __init__(self, cover: Any, folder: Path) -> None:
        self._cover = cover
        self._folder = folder
        self._loaded: dict[str, CodeType] = {}

    def install(self) -> None:
        """From now on SlipCover's hooks of imports use it. Once in a process."""
        if sys.version_info >= (3, 12):
            return
        kept = self

        class Loader(importer.SlipcoverLoader):  # type: ignore[misc]  # SlipCover has no types
            def exec_module(self, module: ModuleType) -> None:
                exec(kept.code(self.origin), module.__dict__)

        importer.SlipcoverLoader = Loader

    def code(self, origin: Path) -> CodeType:
        """The code of the module in the file ``origin``, which reports to ``cover`` what of it runs."""
        source = origin.read_bytes()
        key = _key(origin, source)
        if key not in self._loaded:
            lines, branches, code = self._read(origin, key) or self._write(origin, key, _instrumented(origin, source))
            self._cover.code_lines[str(origin)].update(lines)
            self._cover.code_branches[str(origin)].update(branches)
            self._loaded[key] = self._with_probes(code)
        return self._loaded[key]

    def _file(self, origin: Path) -> Path:
        return self._folder / f"{hashlib.sha256(str(origin).encode()).hexdigest()[:32]}.{sys.implementation.cache_tag}"

    def _read(self, origin: Path, key: str) -> Any:
        try:
            kept_key, made = marshal.loads(self._file(origin).read_bytes())
        except (OSError, EOFError, ValueError, TypeError):  # there is none, or half of one
            return None
        return made if kept_key == key else None

    def _write(self, origin: Path, key: str, made: Any) -> Any:
        self._folder.mkdir(parents=True, exist_ok=True)
        new = self._folder / f"{os.getpid()}-{threading.get_ident()}.new"
        new.write_bytes(marshal.dumps((key, made)))
        new.replace(self._file(origin))
        return made

    def _with_probes(self, code: CodeType) -> CodeType:
        return code.replace(co_consts=tuple(self._constant(code, constant) for constant in code.co_consts))

    def _constant(self, code: CodeType, constant: Any) -> Any:
        if isinstance(constant, CodeType):
            return self._with_probes(constant)
        if not isinstance(constant, tuple) or constant[:1] != (_MARK,):
            return constant
        probe = slipcover.slipcover.probe
        return probe.new(self._cover, code.co_filename, constant[1], NEVER) if constant[1:] else probe.signal


def _key(origin: Path, source: bytes) -> str:
    about = f"{slipcover.__version__} {importlib.util.MAGIC_NUMBER.hex()} {origin}\n"
    return hashlib.sha256(about.encode() + source).hexdigest()


def _instrumented(origin: Path, source: bytes) -> tuple[list[int], list[tuple[int, int]], CodeType]:
    """The lines and branches of a module, and its code as SlipCover changes it, with marks instead of probes."""
    cover = slipcover.Slipcover(branch=True, d_miss_threshold=NEVER)
    marks = SimpleNamespace(signal=(_MARK,), new=lambda _cover, _file, what, _threshold: (_MARK, what))
    compiled = compile(branch.preinstrument(ast.parse(source)), str(origin), "exec", dont_inherit=True)
    with _placing:
        probe, slipcover.slipcover.probe = slipcover.slipcover.probe, marks
        try:
            code: CodeType = cover.instrument(compiled)
        finally:
            slipcover.slipcover.probe = probe
    return sorted(cover.code_lines[str(origin)]), sorted(cover.code_branches[str(origin)]), code
