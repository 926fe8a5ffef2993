"""What a virtual board boots: Debian's kernel, and a root file system in memory (initramfs) with busybox and OpenSSH.

Made from packages on the first start, kept under the digest of all that it is made from.
"""

from __future__ import annotations

import hashlib
import re
import stat
from dataclasses import dataclass
from importlib import resources
from pathlib import Path, PurePosixPath

from edgekit.files import cache_root, locked, write_atomic
from edgekit.virtual.cpio import Entry, character_device, file, folder, link, pack
from edgekit.virtual.debs import files_of
from edgekit.virtual.elf import needed
from edgekit.virtual.errors import VirtualBoardError
from edgekit.virtual.modules import load_order, module_name, plain_module
from edgekit.virtual.packages import Package, Wanted, fetch, read_package
from edgekit.virtual.progress import Progress, Step

WANTED = Wanted("linux-image-cloud-arm64", ("busybox-static", "openssh-server", "openssh-sftp-server"))
#: crc32c is what ext4 asks the kernel's crypto for by name, so no module depends on it.
_MODULES = ("virtio_pci", "virtio_net", "virtio_blk", "crc32c_generic", "ext4")

_HERE = Path(str(resources.files("edgekit.virtual")))
_ROOT = _HERE / "root"
_PROGRAMS = re.compile(r"usr/bin/busybox|usr/sbin/sshd|usr/lib/openssh/(sftp-server|sshd-session|sshd-auth)")
_LIBRARY = re.compile(r"usr/lib/(aarch64-linux-gnu/)?[^/]+\.so[.0-9]*")
_KERNEL = re.compile(r"boot/vmlinuz-.*|usr/lib/modules/.*/(modules\.builtin|.*\.ko(\.xz)?)")
_MODULE = re.compile(r".*\.ko(\.xz)?")


@dataclass(frozen=True)
class Image:
    """Files that QEMU boots; ``digest`` tells them from others."""

    digest: str
    kernel: Path
    initramfs: Path


def build_image(update: bool, progress: Progress) -> Image:
    """The image, from the cache or new.

    Raises:
        VirtualBoardError: packages cannot be had, or hold not what is expected.
        IntegrityError: a package in the cache is damaged.
        StorageError: the cache cannot be written.
    """
    cache = cache_root() / "virtual"
    files = fetch(WANTED, cache, update, progress)
    digest = _digest(list(files))
    place = cache / "images" / digest
    image = Image(digest, place / "kernel", place / "initramfs")
    place.mkdir(parents=True, exist_ok=True)
    with locked(place / "lock"):
        if not image.initramfs.exists():
            progress(Step("making the image"))
            kernel, initramfs = _make(files)
            write_atomic(image.kernel, kernel)
            write_atomic(image.initramfs, initramfs)  # the last one: it is the sign that all is there
    return image


def _digest(packages: list[Package]) -> str:
    """Of the packages, the files that edgekit adds, and the code that puts them together."""
    own = [path for path in sorted(_HERE.rglob("*")) if path.is_file() and (path.suffix == ".py" or _ROOT in path.parents)]
    parts = [(p.name, p.sha256) for p in packages] + [(str(p.relative_to(_HERE)), p.read_bytes()) for p in own]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:40]


def _make(files: dict[Package, Path]) -> tuple[bytes, bytes]:
    """The kernel and the initramfs."""
    programs: list[Entry] = []
    libraries: list[Entry] = []
    kernel: list[Entry] = []
    for package, path in files.items():
        data = read_package(package, path)
        if package.name.startswith("linux-image-"):
            kernel += files_of(data, package.name, lambda name: bool(_KERNEL.fullmatch(name)))
        elif package.name in WANTED.names:
            programs += files_of(data, package.name, lambda name: bool(_PROGRAMS.fullmatch(name)))
        else:
            libraries += files_of(data, package.name, lambda name: bool(_LIBRARY.fullmatch(name)))
    image, modules = _kernel(kernel)
    return image, pack((*_skeleton(), *programs, *_closure(programs, libraries), *modules, *_own_files()))


def _skeleton() -> list[Entry]:
    """Folders, and the links of Debian's merged /usr."""
    folders = [folder(path) for path in ("dev", "proc", "sys", "run", "tmp", "home", "usr/bin", "usr/sbin", "usr/lib")]
    links = [link(path, f"usr/{path}") for path in ("bin", "sbin", "lib")]
    return [*folders, folder("root", 0o700), *links, character_device("dev/console", 5, 1)]


def _closure(programs: list[Entry], libraries: list[Entry]) -> list[Entry]:
    """The libraries that the programs load, and the links by which they name them (ld.so has one of its own name)."""
    by_name: dict[str, list[Entry]] = {}
    for entry in libraries:
        by_name.setdefault(PurePosixPath(entry.path).name, []).append(entry)
    found: dict[str, list[Entry]] = {}
    waiting = [library for program in programs for library in needed(program.data)]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        if name not in by_name:
            raise VirtualBoardError(f"no package has the library {name}, which a program of the virtual board needs")
        found[name] = by_name[name]
        for entry in by_name[name]:
            waiting += [PurePosixPath(entry.data.decode()).name] if stat.S_ISLNK(entry.mode) else needed(entry.data)
    return [entry for entries in found.values() for entry in entries]


def _kernel(entries: list[Entry]) -> tuple[bytes, list[Entry]]:
    """The kernel's image; the modules that a board needs, and their order in ``etc/modules``."""
    image = next((e.data for e in entries if e.path.startswith("boot/")), None)
    builtin = next((e.data.decode() for e in entries if e.path.endswith("modules.builtin")), None)
    if image is None or builtin is None:
        raise VirtualBoardError("the kernel package has no kernel, or no list of what is built in")
    modules = {module_name(e.path): plain_module(e.path, e.data) for e in entries if _MODULE.fullmatch(e.path)}
    order = load_order(_MODULES, modules, map(module_name, builtin.split()))
    paths = {name: f"usr/lib/modules/{name}.ko" for name in order}
    listing = "".join(f"/{path}\n" for path in paths.values())
    return image, [*(file(path, modules[name]) for name, path in paths.items()), file("etc/modules", listing.encode())]


def _own_files() -> list[Entry]:
    """What edgekit adds, from the folder ``root/``. Scripts may be executed, wherever they were installed from."""
    paths = [path for path in sorted(_ROOT.rglob("*")) if path.is_file()]
    contents = {str(PurePosixPath(path.relative_to(_ROOT))): path.read_bytes() for path in paths}
    return [file(path, data, 0o755 if data.startswith(b"#!") else 0o644) for path, data in contents.items()]
