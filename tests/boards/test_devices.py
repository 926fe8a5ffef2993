"""The list of named devices: read, changed, and with mistakes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edgekit.devices import KnownDevice, add, devices_file, load_devices, remove
from edgekit.errors import InputError

KITCHEN = KnownDevice(name="kitchen", address="ssh://pi@192.0.2.1:2222", identity='~/.ssh/"the\\ key"', board="raspberry-pi-4b")
CELLAR = KnownDevice(name="cellar", address="serial:/dev/ttyUSB0")


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEKIT_CONFIG", str(tmp_path / "config"))
    return tmp_path / "config"


def test_what_is_added_is_read_again() -> None:
    assert load_devices() == {}
    add(KITCHEN)
    add(CELLAR)
    assert load_devices() == {"kitchen": KITCHEN, "cellar": CELLAR}
    assert load_devices()["kitchen"].identity_file == Path('~/.ssh/"the\\ key"').expanduser()
    add(KITCHEN.model_copy(update={"board": None}))
    assert load_devices()["kitchen"].board is None
    remove("kitchen")
    remove("kitchen")
    assert load_devices() == {"cellar": CELLAR}


def test_what_the_user_wrote_stays(config: Path) -> None:
    config.mkdir()
    text = '# my devices\n[devices.desk]\naddress = "ssh://desk" # under it\n\n[devices.desk-2]\naddress = "ssh://desk2"\n'
    devices_file().write_text(text)
    add(CELLAR)
    assert devices_file().read_text() == text + '\n[devices.cellar]\naddress = "serial:/dev/ttyUSB0"\n'
    remove("cellar")
    assert devices_file().read_text().rstrip() == text.rstrip()
    remove("desk")
    assert set(load_devices()) == {"desk-2"}
    assert devices_file().read_text().startswith("# my devices\n")


def test_many_at_once_lose_nothing() -> None:
    many = [CELLAR.model_copy(update={"name": f"board-{i}"}) for i in range(20)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, many))
    assert load_devices() == {device.name: device for device in many}


def test_an_entry_of_another_form_is_not_edited(config: Path) -> None:
    config.mkdir()
    text = '[devices]\ncellar = {address = "ssh://old"}\n'
    devices_file().write_text(text)
    assert load_devices()["cellar"].address == "ssh://old"
    for change in (lambda: add(CELLAR), lambda: remove("cellar")):
        with pytest.raises(InputError, match="cellar"):
            change()
    assert devices_file().read_text() == text


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[devices.a", "TOML"),
        ('[devices.a]\naddress = "no address"\n', "address"),
        ('[devices.a]\nboard = "x"\n', "address"),
        ('[devices.a]\naddress = "ssh://a"\ncolour = 1\n', "colour"),
        ('[devices."a b"]\naddress = "ssh://a"\n', "name"),
        ('[device.a]\naddress = "ssh://a"\n', "not device"),
        ("devices = 1\n", "plain value"),
        ("[devices]\na = 1\n", "devices.a"),
    ],
)
def test_a_mistake_is_named_with_its_file(text: str, named: str, config: Path) -> None:
    config.mkdir()
    devices_file().write_text(text)
    with pytest.raises(InputError) as caught:
        load_devices()
    assert str(devices_file()) in str(caught.value)
    assert named in str(caught.value)
