"""Debian packages for another architecture, from the package sources of this system, without changing the system.

apt is given folders of our own for its state and its cache, so ``dpkg --add-architecture`` and root are not needed; it checks the
sources' signatures and every package's hash as always. What it brought is kept under its SHA-256, beside the list of what was
chosen, so that later starts need no network.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from edgekit.board import config_folder
from edgekit.errors import IntegrityError
from edgekit.files import locked, storage_errors, write_atomic
from edgekit.virtual.errors import VirtualBoardError
from edgekit.virtual.progress import Progress, Step
from edgekit.virtual.tools import attempt, run, tool, words

_log = logging.getLogger(__name__)

_INSTALLS = re.compile(r"^Inst (\S+) \((\S+) ", re.MULTILINE)  # what `apt-get --simulate install` says
_FIELDS = re.compile(r"^(Package|Version|SHA256|Size): (\S+)$", re.MULTILINE)  # of what `apt-cache show` says
_LIBRARY = re.compile(r"lib|zlib")
_POLL = 0.2  #: seconds between looks at how much is here
_OTHER_SOURCES = "where this system's sources have no Debian for arm64, give others: docs/virtual-boards.md"


@dataclass(frozen=True)
class Package:
    """One package of the sources. ``size`` is in bytes."""

    name: str
    version: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Wanted:
    """What to fetch: the package of each name, all libraries that these depend on, and the kernel's real package.

    ``kernel`` is a package that depends on the newest kernel of its kind.
    """

    kernel: str
    names: tuple[str, ...]


def sources_file() -> Path:
    """Package sources (deb822 format) that are used instead of the system's, if the file is there."""
    return config_folder() / "debian.sources"


def fetch(wanted: Wanted, cache: Path, update: bool, progress: Progress) -> dict[Package, Path]:
    """The packages' files, all in ``cache``. The network is used where one is missing there, or to ``update``.

    Raises:
        VirtualBoardError: apt is missing, or cannot get them.
        StorageError: the cache cannot be written.
    """
    folder = cache / "packages"
    with storage_errors(f"cannot use the folder {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
    key = hashlib.sha256(repr((wanted, _sources())).encode()).hexdigest()[:16]
    listing = folder / f"{key}.json"
    with locked(folder / "lock"):
        if update or not (files := _known(listing, folder)):
            apt = _Apt(cache / "apt")
            progress(Step("asking the package sources"))
            chosen = apt.choose(wanted)
            files = {package: _file(folder, package) for package in chosen}
            apt.download([p for p, path in files.items() if not _whole(p, path)], folder, progress)
            write_atomic(listing, json.dumps([asdict(package) for package in chosen], indent=1).encode())
    return files


def _sources() -> str:
    return sources_file().read_text() if sources_file().exists() else ""


def _file(folder: Path, package: Package) -> Path:
    return folder / f"{package.sha256}.deb"


def _known(listing: Path, folder: Path) -> dict[Package, Path]:
    """The packages that were chosen the last time; empty where one is not here."""
    if not listing.exists():
        return {}
    files = {p: _file(folder, p) for p in (Package(**fields) for fields in json.loads(listing.read_bytes()))}
    return files if all(path.exists() for path in files.values()) else {}


def read_package(package: Package, path: Path) -> bytes:
    """A package's file.

    Raises:
        IntegrityError: it changed since it was fetched. It is deleted.
    """
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != package.sha256:
        path.unlink()
        raise IntegrityError(
            f"the package {package.name} in {path} is damaged; it was deleted", "run the command again: it is fetched anew"
        )
    return data


def _whole(package: Package, path: Path) -> bool:
    return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == package.sha256


class _Apt:
    """apt with a configuration of our own in ``folder``, for arm64."""

    def __init__(self, folder: Path) -> None:
        for needed in ("lists/partial", "cache/archives/partial"):
            (folder / needed).mkdir(parents=True, exist_ok=True)
        (folder / "status").touch()
        (folder / "apt.conf").write_text(_configuration(folder))
        self._options = ("-c", str(folder / "apt.conf"))
        self._get, self._cache = tool("apt-get"), tool("apt-cache")

    def choose(self, wanted: Wanted) -> list[Package]:
        """Versions and hashes of what the sources have, by name."""
        updated = attempt((self._get, *self._options, "-q", "--error-on=any", "update"))
        plan = attempt(
            (self._get, *self._options, "--simulate", "--no-install-recommends", "install", wanted.kernel, *wanted.names)
        )
        if plan.returncode != 0:
            raise VirtualBoardError(
                f"apt cannot find Debian's arm64 packages for the virtual board: {words(plan)}\n{words(updated)}", _OTHER_SOURCES
            )
        if updated.returncode != 0:  # of some source, perhaps one that has nothing to do with this
            _log.warning("not every package source answers: %s", words(updated))
        kernel = re.compile(r"linux-image-\d")
        versions = {
            name: version
            for name, version in _INSTALLS.findall(plan.stdout)
            if name in wanted.names or _LIBRARY.match(name) or kernel.match(name)
        }
        return self._describe(versions)

    def _describe(self, versions: dict[str, str]) -> list[Package]:
        names = [f"{name}={version}" for name, version in sorted(versions.items())]
        text = run("looking up the packages", (self._cache, *self._options, "show", *names))
        stanzas = [dict(_FIELDS.findall(stanza)) for stanza in text.split("\n\n") if stanza.strip()]
        return [Package(s["Package"], s["Version"], s["SHA256"], int(s["Size"])) for s in stanzas]

    def download(self, packages: list[Package], folder: Path, progress: Progress) -> None:
        """Bring the packages to ``folder``, each under its hash."""
        if not packages:
            return
        total = sum(package.size for package in packages)
        names = [f"{package.name}={package.version}" for package in packages]
        with tempfile.TemporaryDirectory(dir=folder, prefix=".fetching-") as place, tempfile.TemporaryFile() as log:
            process = subprocess.Popen(
                (self._get, *self._options, "-q", "download", *names), cwd=place, stdout=subprocess.DEVNULL, stderr=log
            )
            try:
                while process.poll() is None:
                    here = sum(path.stat().st_size for path in Path(place).iterdir())
                    progress(Step("fetching packages", min(here, total), total))
                    time.sleep(_POLL)
            finally:
                process.kill()
                process.wait()
            if process.returncode != 0:
                log.seek(0)
                said = log.read().decode(errors="replace").strip()
                raise VirtualBoardError(f"apt cannot fetch the packages: {said}", "check the network, and run the command again")
            _keep(packages, Path(place), folder)


def _keep(packages: list[Package], place: Path, folder: Path) -> None:
    """Move what was fetched to where it belongs by its content."""
    fetched = {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in place.iterdir()}
    for package in packages:
        if package.sha256 not in fetched:
            raise IntegrityError(f"apt fetched another {package.name} than its sources list", "run the command again")
        fetched[package.sha256].replace(_file(folder, package))


def _configuration(folder: Path) -> str:
    """Read after the system's own, so that its proxies, keys and sources hold."""
    sources = f'Dir::Etc::sourcelist "{sources_file()}";\nDir::Etc::sourceparts "/dev/null";\n' if sources_file().exists() else ""
    return f"""// Written by edgekit. No hooks, no other architecture, and of the indexes only the packages.
#clear APT::Update;
#clear APT::Architectures;
#clear Acquire::IndexTargets;
APT::Architecture "arm64";
APT::Architectures {{ "arm64"; }};
APT::Sandbox::User "root"; // whose folders these are; without root no other user is taken
Acquire::Languages "none";
Acquire::IndexTargets::deb::Packages {{
  MetaKey "$(COMPONENT)/binary-$(ARCHITECTURE)/Packages";
  flatMetaKey "Packages";
  ShortDescription "Packages";
  Description "$(RELEASE)/$(COMPONENT) $(ARCHITECTURE) Packages";
  flatDescription "$(RELEASE) Packages";
  Optional "0";
}};
Dir::State "{folder}";
Dir::State::lists "{folder}/lists";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}/cache";
Dir::Cache::pkgcache "pkgcache.bin"; // Docker's images turn it off, and each call reads the lists anew
Dir::Cache::srcpkgcache "srcpkgcache.bin";
{sources}"""
