"""The key that firmware images are signed with: one a user, made when it is first needed, for development."""

from __future__ import annotations

from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from edgekit.board import config_folder
from edgekit.errors import InputError
from edgekit.files import locked, storage_errors, write_atomic


def key_file() -> Path:
    """Where the key is: PEM (PKCS 8), as ``imgtool`` and ``openssl`` take it."""
    return config_folder() / "keys" / "firmware.pem"


def signing_key() -> Ed25519PrivateKey:
    """The user's key.

    Raises:
        InputError: the file holds something else.
        StorageError: it cannot be read or made.
    """
    path = key_file()
    with storage_errors(f"cannot use the key {path}"):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(path.with_name(f".{path.name}.lock")):
            if not path.exists():
                write_atomic(path, _pem(Ed25519PrivateKey.generate()), mode=0o600)
            return read_key(path)


def read_key(path: Path) -> Ed25519PrivateKey:
    """The key in a file.

    Raises:
        InputError: it holds no Ed25519 key, or one with a passphrase.
    """
    hint = "`openssl genpkey -algorithm ed25519 -out FILE` makes one"
    try:
        key = form.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InputError(f"{path} is no private key in PEM without a passphrase: {error}", hint) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(f"{path} is no Ed25519 key", hint)
    return key


def public_bytes(key: Ed25519PrivateKey | Ed25519PublicKey) -> bytes:
    """The 32 bytes of the public key, as bootloader and firmware have them."""
    public = key.public_key() if isinstance(key, Ed25519PrivateKey) else key
    return public.public_bytes(form.Encoding.Raw, form.PublicFormat.Raw)


def _pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
