"""Fetching packages, by the real apt from a package source on this disk, and reading them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from edgekit.errors import IntegrityError
from edgekit.virtual.debs import files_of
from edgekit.virtual.errors import VirtualBoardError
from edgekit.virtual.packages import Package, Wanted, fetch, read_package, sources_file
from edgekit.virtual.progress import Step, silent
from tests.virtual.conftest import need
from tests.virtual.debian import index, make_deb, sources

WANTED = Wanted("linux-image-small", ("server",))
DEPENDS = {"linux-image-small": "linux-image-6-small", "linux-image-6-small": "", "server": "libone, adduser", "libone": "libtwo"}
DEPENDS |= {"libtwo": "", "adduser": "", "libother": ""}
FETCHED = {"linux-image-6-small", "libone", "libtwo", "server"}


@pytest.fixture
def source(tmp_path: Path, config: Path) -> Path:
    """A package source that is the only one."""
    need("apt-get", "dpkg-deb")
    folder = tmp_path / "source"
    folder.mkdir()
    for name, depends in DEPENDS.items():
        make_deb(folder, name, {f"usr/share/{name}": name.encode()}, depends)
    index(folder, DEPENDS)
    config.mkdir()
    sources_file().write_text(sources(folder))
    return folder


def test_the_names_their_libraries_and_the_kernel_are_fetched(source: Path, tmp_path: Path) -> None:
    steps: list[Step] = []
    files = fetch(WANTED, tmp_path / "cache", update=False, progress=steps.append)
    assert {package.name for package in files} == FETCHED
    for package, path in files.items():
        assert read_package(package, path) == (source / f"{package.name}.deb").read_bytes()
    assert "asking the package sources" in {step.what for step in steps}


def test_the_second_time_needs_no_source(source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = fetch(WANTED, tmp_path / "cache", update=False, progress=silent)
    shutil.rmtree(source)
    assert fetch(WANTED, tmp_path / "cache", update=False, progress=silent) == first
    assert not caplog.records
    assert fetch(WANTED, tmp_path / "cache", update=True, progress=silent) == first
    assert "not every package source answers" in caplog.text


def test_an_update_fetches_only_what_changed(source: Path, tmp_path: Path) -> None:
    first = fetch(WANTED, tmp_path / "cache", update=False, progress=silent)
    shutil.rmtree(source / "libtwo.tree")
    make_deb(source, "libtwo", {"usr/share/libtwo": b"another"})
    index(source, DEPENDS)
    assert fetch(WANTED, tmp_path / "cache", update=False, progress=silent) == first
    second = fetch(WANTED, tmp_path / "cache", update=True, progress=silent)
    assert {p.name for p in set(second) - set(first)} == {"libtwo"}


def test_a_package_that_is_not_what_the_source_lists_is_refused(source: Path, tmp_path: Path) -> None:
    with (source / "libone.deb").open("r+b") as file:
        file.seek(100)
        file.write(b"another")
    with pytest.raises(VirtualBoardError, match="libone"):
        fetch(WANTED, tmp_path / "cache", update=False, progress=silent)


def test_a_damaged_package_in_the_cache_is_an_error_once(source: Path, tmp_path: Path) -> None:
    del source
    files = fetch(WANTED, tmp_path / "cache", update=False, progress=silent)
    package, path = next(iter(files.items()))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(IntegrityError, match=package.name):
        read_package(package, path)
    again = fetch(WANTED, tmp_path / "cache", update=False, progress=silent)
    assert read_package(package, again[package])


def test_a_source_without_the_packages_says_where_to_give_another(source: Path, tmp_path: Path) -> None:
    index(source, {"server": ""})
    with pytest.raises(VirtualBoardError, match="linux-image-small") as caught:
        fetch(WANTED, tmp_path / "cache", update=False, progress=silent)
    assert "docs/virtual-boards.md" in caught.value.hint


def test_an_unsigned_source_is_refused(source: Path, tmp_path: Path) -> None:
    sources_file().write_text(sources(source).replace("Trusted: yes\n", ""))
    with pytest.raises(VirtualBoardError):
        fetch(WANTED, tmp_path / "cache", update=False, progress=silent)


def test_the_systems_hooks_and_architectures_are_left_out(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del source
    hooks, ran = tmp_path / "hooks.conf", tmp_path / "ran"
    hooks.write_text(f'APT::Update::Post-Invoke {{ "touch {ran}"; }};\nAPT::Architectures {{ "amd64"; "armhf"; }};\n')
    monkeypatch.setenv("APT_CONFIG", str(hooks))
    fetch(WANTED, tmp_path / "cache", update=False, progress=silent)
    assert not ran.exists()
    ours = ["apt-config", "-c", str(tmp_path / "cache/apt/apt.conf"), "dump", "APT::Architectures"]
    assert "amd64" not in subprocess.run(ours, capture_output=True, text=True, check=True).stdout


def test_files_of_a_package(tmp_path: Path) -> None:
    need("dpkg-deb")
    files = {"lib/arch/libx.so.1.2": b"x", "usr/sbin/daemon": b"d", "etc/unwanted": b""}
    deb = make_deb(tmp_path, "libx", files, links={"lib/arch/libx.so.1": "libx.so.1.2"})
    entries = {e.path: e for e in files_of(deb.read_bytes(), "libx", lambda path: not path.startswith("etc"))}
    assert set(entries) == {"usr/lib/arch/libx.so.1.2", "usr/lib/arch/libx.so.1", "usr/sbin/daemon"}
    assert entries["usr/lib/arch/libx.so.1"].data == b"libx.so.1.2"
    assert entries["usr/sbin/daemon"].data == b"d"
    with pytest.raises(IntegrityError, match="libx"):
        list(files_of(deb.read_bytes()[:200], "libx", lambda path: True))  # noqa: ARG005


def test_a_package_has_the_digest_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "x.deb"
    path.write_bytes(b"")
    with pytest.raises(IntegrityError):
        read_package(Package("x", "1", "0" * 64, 0), path)
    assert not path.exists()
