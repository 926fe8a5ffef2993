"""Firmware slots: power cut at every write of an update, changed images, and signatures (slots_test.c, under sanitizers)."""

from __future__ import annotations

import itertools
import random
import subprocess
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from edgekit.firmware.build import FIRMWARE

from edgekit.mcuboot import public_bytes, sign_image
from tests.firmware.tools import compile_test

HERE = Path(__file__).parent
SLOTS = (0x60000400, 0x60000C00)  #: addresses that slots_test.c has
HEADER = 512
SOURCES = (
    "core/error.c",
    "core/sha256.c",
    "core/sha256_here.c",
    "runner/cbor.c",
    "runner/crc32.c",
    "runner/fields.c",
    "runner/smp.c",
)
P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493


@pytest.fixture(scope="module")
def slots_test(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sources = [*(FIRMWARE / name for name in SOURCES), *sorted((FIRMWARE / "boot").glob("*.c"))]
    sources += [FIRMWARE / "serial" / "imagegroup.c"]
    flags = ["-ffunction-sections", "-Wl,--gc-sections", "-Wl,--wrap=ek_ed25519_verify"]
    flags += [f"-I{FIRMWARE}", f"-I{FIRMWARE / 'core'}"]
    return compile_test("slots_test", sources, tmp_path_factory.mktemp("slots"), *flags)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The key, and images A (slot 0), B and C (slot 1), D (slot 0)."""
    folder = tmp_path_factory.mktemp("images")
    chance = random.Random(5)
    key = Ed25519PrivateKey.generate()
    (folder / "key").write_bytes(public_bytes(key))
    for number, slot in enumerate((0, 1, 1, 0)):
        large = 600 if number == 2 else 0  # C reaches into its slot's last sector
        program = bytes(HEADER) + chance.randbytes(chance.randint(400, 700) + large)
        (folder / "ABCD"[number]).write_bytes(sign_image(program, HEADER, SLOTS[slot], (1, number, 0, 0), key).data)
    return [folder / name for name in ("key", "A", "B", "C", "D")]


def run(*command: Path | str, given: str = "") -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, input=given)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_wherever_the_power_is_cut_a_whole_signed_image_runs(slots_test: Path, files: list[Path]) -> None:
    """At every erase and write of an upload, a trial, a revert and a confirmation, and once more while it starts after that."""
    cuts = int(run(slots_test, "sweep", *files).split()[0])
    assert cuts > 8000


def test_wherever_the_power_is_cut_an_upload_goes_on(slots_test: Path, files: list[Path]) -> None:
    """At every erase and write of an upload, and of the upload that goes on after that: where it stood, but for a unit that was
    half-written, whose sector comes again."""
    cuts = int(run(slots_test, "resume", *files).split()[0])
    assert cuts > 9000


def test_no_changed_image_is_taken(slots_test: Path, files: list[Path]) -> None:
    run(slots_test, "flips", *files[:3])


def test_the_group_refuses_what_would_leave_no_way_back(slots_test: Path, files: list[Path]) -> None:
    run(slots_test, "group", *files)


Row = tuple[bytes, bytes, bytes]  #: public key, message, signature


def verdicts(slots_test: Path, rows: list[Row]) -> list[bool]:
    given = "".join(" ".join(part.hex() or "-" for part in row) + "\n" for row in rows)
    return [line == "1" for line in run(slots_test, "ed25519", given=given).split()]


#: RFC 8032, 7.1: TEST 1, TEST 2, TEST 3 and TEST SHA(abc).
RFC_8032 = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
    (
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
        "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b589"
        "09351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
    ),
]


def test_the_signatures_of_rfc_8032(slots_test: Path) -> None:
    rows = [(bytes.fromhex(key), bytes.fromhex(message), bytes.fromhex(signature)) for key, message, signature in RFC_8032]
    for key, message, signature in rows:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    assert verdicts(slots_test, rows) == [True] * len(rows)


def test_it_judges_as_another_library_does(slots_test: Path) -> None:
    """Messages around SHA-512's block lengths, and the same with a bit changed in key, message or signature."""
    chance = random.Random(7)
    rows, expected = [], []
    for length in [*range(40, 70), *range(104, 132), 0, 1, 1000, 2000]:
        secret = Ed25519PrivateKey.from_private_bytes(chance.randbytes(32))
        message = chance.randbytes(length)
        good = (public_bytes(secret), message, secret.sign(message))
        place = chance.choice([part for part in range(3) if good[part]])
        bits = bytearray(good[place])
        bits[chance.randrange(len(bits))] ^= 1 << chance.randrange(8)
        bad = (*good[:place], bytes(bits), *good[place + 1 :])
        for row in (good, bad):
            rows.append(row)
            expected.append(accepts(*row))
    assert verdicts(slots_test, rows) == expected
    assert (sum(expected), len(expected)) == (len(rows) // 2, len(rows))


def accepts(key: bytes, message: bytes, signature: bytes) -> bool:
    """What OpenSSL says."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def little(number: int) -> bytes:
    return number.to_bytes(32, "little")


def test_where_implementations_differ_it_is_strict(slots_test: Path) -> None:
    """S that is not reduced, encodings that are not canonical, points of small order, points off the curve (as in Wycheproof)."""
    secret, message = Ed25519PrivateKey.from_private_bytes(bytes(range(32))), b"firmware"
    key, signature = public_bytes(secret), secret.sign(message)
    r, s = signature[:32], int.from_bytes(signature[32:], "little")
    bad = [(key, message, r + little(s + k * ORDER)) for k in range(1, 16) if s + k * ORDER < 2**256]
    bad += [(key, message, r + little(value)) for value in (0, 1, ORDER - 1, ORDER, ORDER + 1, 2**256 - 1)]
    bad += [(key, message, little(value) + signature[32:]) for value in (0, 1, P - 1, P, P + 1, 2**255 - 1, 2**256 - 1)]
    bad += [(little(value), message, signature) for value in (2, P, P + 1, 2**255 - 1, 1 + 2**255, P - 1 + 2**255)]
    small = [*small_order_points(), P, P + 1, P | 1 << 255, (P + 1) | 1 << 255]
    bad += [(little(a), message, little(b) + little(value)) for a, b in itertools.product(small, small) for value in (0, 1)]
    assert verdicts(slots_test, [(key, message, signature)]) == [True]
    assert verdicts(slots_test, bad) == [False] * len(bad)
    assert any(accepts(*row) for row in bad), "OpenSSL takes some of these, so the rows are what they are meant to be"


def small_order_points() -> list[int]:
    """The encodings of the eight points whose order divides 8, found from the curve's equation."""
    d = -121665 * pow(121666, -1, P) % P
    encodings = {1, P - 1, 0, 1 << 255}  # orders 1, 2, 4, 4
    for root in square_roots((1 + d) % P):  # of order 8: x² = y², so that 2 y² / … lies on an axis: d y⁴ - 2 y² … = 0
        for yy in ((1 - root) * pow(d, -1, P) % P, (1 + root) * pow(d, -1, P) % P):
            encodings |= {y | sign << 255 for y in square_roots(yy) for sign in (0, 1)}
    return sorted(encodings)


def square_roots(value: int) -> list[int]:
    root = pow(value, (P + 3) // 8, P)
    for candidate in (root, root * pow(2, (P - 1) // 4, P) % P):
        if candidate * candidate % P == value % P:
            return sorted({candidate, P - candidate})
    return []
