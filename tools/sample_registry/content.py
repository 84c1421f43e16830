"""The sample repository: the shape of Docker Hub's ``hello-world``, made by code and the same every time.

8 tags, 21 manifests (5 of them lists) and 31 blobs. Every image can be pulled, as its layer is a real archive; that of
linux/amd64 can also be run.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import struct
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from registry_sync.domain import media_types
from registry_sync.domain.digests import Digest

GREETING = "Hello from registry-sync!\n\nThis image is a sample, made on this machine in place of Docker Hub's.\n"
_CREATED = "2026-01-01T00:00:00Z"
_OTHER_LINUX = ("386", "arm/v5", "arm/v7", "arm64/v8", "mips64le", "ppc64le", "riscv64", "s390x")
_WINDOWS = tuple(
    {"architecture": "amd64", "os": "windows", "os.version": version}
    for version in ("10.0.14393.2485", "10.0.16299.726", "10.0.17763.316")
)


@dataclass
class SampleContent:
    """Tags, manifests (media type and bytes) and blobs of the sample repository, by name or digest."""

    tags: dict[str, Digest] = field(default_factory=dict)
    manifests: dict[Digest, tuple[str, bytes]] = field(default_factory=dict)
    blobs: dict[Digest, bytes] = field(default_factory=dict)

    def add_layer(self, files: Mapping[str, tuple[int, bytes]]) -> tuple[dict[str, Any], str]:
        """A layer with ``files``, path to mode and bytes: its descriptor, and the digest of its archive."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for path, (mode, data) in files.items():
                entry = tarfile.TarInfo(path)
                entry.mode, entry.size = mode, len(data)
                tar.addfile(entry, io.BytesIO(data))
        diff_id = f"sha256:{hashlib.sha256(archive.getvalue()).hexdigest()}"
        return self._add_blob(gzip.compress(archive.getvalue(), mtime=0), media_types.DOCKER_LAYER_GZIP), diff_id

    def add_image(
        self, layer: tuple[dict[str, Any], str], platform: Mapping[str, str], config: Mapping[str, Any]
    ) -> Digest:
        """An image of one layer. ``config`` is what a container is started with."""
        descriptor, diff_id = layer
        document = {
            **platform,
            "created": _CREATED,
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
            "history": [{"created": _CREATED, "created_by": "registry-sync"}],
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": media_types.DOCKER_MANIFEST,
            "config": self._add_blob(_json(document), media_types.DOCKER_CONFIG),
            "layers": [descriptor],
        }
        return self._add_manifest(media_types.DOCKER_MANIFEST, manifest)

    def add_list(self, images: Iterable[tuple[Digest, Mapping[str, str]]]) -> Digest:
        """A manifest list of images with their platforms."""
        entries = [
            {"mediaType": self.manifests[digest][0], "digest": digest, "size": len(self.manifests[digest][1])}
            | {"platform": dict(platform)}
            for digest, platform in images
        ]
        document = {"schemaVersion": 2, "mediaType": media_types.DOCKER_LIST, "manifests": entries}
        return self._add_manifest(media_types.DOCKER_LIST, document)

    def _add_blob(self, data: bytes, media_type: str) -> dict[str, Any]:
        digest = Digest.of(data)
        self.blobs[digest] = data
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def _add_manifest(self, media_type: str, document: Mapping[str, Any]) -> Digest:
        data = _json(document)
        digest = Digest.of(data)
        self.manifests[digest] = media_type, data
        return digest


def sample_content() -> SampleContent:
    """The sample repository."""
    content = SampleContent()
    run = {"Cmd": ["/hello"], "WorkingDir": "/"}
    program = content.add_layer({"hello": (0o755, amd64_program(GREETING)), "hello.txt": (0o644, GREETING.encode())})
    linux = [
        (content.add_image(_text_layer(content, f"linux/{name}"), _linux(name), {}), _linux(name))
        for name in _OTHER_LINUX
    ]
    linux.insert(0, (content.add_image(program, _linux("amd64"), run), _linux("amd64")))
    windows = [
        (content.add_image(_text_layer(content, f"windows {platform['os.version']}"), platform, {}), platform)
        for platform in _WINDOWS
    ]
    first = content.add_image(program, _linux("amd64"), {**run, "Labels": {"version": "1"}})
    later = [content.add_image(_text_layer(content, f"release {number}"), _linux("amd64"), {}) for number in (2, 3, 4)]
    content.tags = {
        "latest": content.add_list([*linux, *windows]),
        "linux": content.add_list(linux),
        "nanoserver": content.add_list(windows),
        "nanoserver1709": content.add_list(windows[:1]),
        "nanoserver-sac2016": content.add_list([windows[1], (later[2], _linux("amd64"))]),
        "v1": first,
        "v2": later[0],
        "v3": later[1],
    }
    return content


def _linux(name: str) -> dict[str, str]:
    architecture, _, variant = name.partition("/")
    return {"architecture": architecture, "os": "linux", **({"variant": variant} if variant else {})}


def _text_layer(content: SampleContent, made_for: str) -> tuple[dict[str, Any], str]:
    return content.add_layer({"hello.txt": (0o644, f"{GREETING}It was made for {made_for}.\n".encode())})


def amd64_program(text: str) -> bytes:
    """A static program for Linux on amd64 that prints ``text``: ``write(1, text)`` and ``exit(0)`` (elf(5))."""
    data = text.encode()
    headers, base = 64 + 56, 0x400000
    tail = b"\x0f\x05" + b"\xb8\x3c\0\0\0" + b"\x31\xff" + b"\x0f\x05"  # syscall; eax = 60; edi = 0; syscall
    length = b"\xba" + struct.pack("<I", len(data))  # edx = length
    address = b"\x48\x8d\x35" + struct.pack("<i", len(length) + len(tail))  # rsi = what follows the code
    code = b"\xb8\x01\0\0\0" + b"\xbf\x01\0\0\0" + address + length + tail  # eax = 1; edi = 1
    size = headers + len(code) + len(data)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = ident + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, base + headers, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x1000)
    return header + segment + code + data


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
