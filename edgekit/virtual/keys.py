"""Keys of virtual boards: one pair to log in with, shared by all, and one pair a board that proves which board it is."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgekit.files import locked, storage_errors, write_atomic


def key_pair(path: Path, comment: str) -> str:
    """The Ed25519 pair in ``path`` and ``path.pub``, made where it is missing. Its public line: ``ssh-ed25519 AAAA… comment``.

    Raises:
        StorageError: it cannot be written or read.
    """
    public = path.with_name(f"{path.name}.pub")
    with storage_errors(f"cannot use the key {path}"):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(path.with_name(f".{path.name}.lock")):
            if not public.exists():
                key = Ed25519PrivateKey.generate()
                secret = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.OpenSSH, form.NoEncryption())
                line = key.public_key().public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH)
                write_atomic(path, secret, mode=0o600)
                write_atomic(public, line + f" {comment}\n".encode())
        return public.read_text().strip()
