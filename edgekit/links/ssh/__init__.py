"""The way to a board over SSH: keys and host keys as OpenSSH has them, files by SFTP, messages by ``edgekit-runner attach``."""

from edgekit.links.ssh.connection import Connection
from edgekit.links.ssh.link import SshLink

__all__ = ["Connection", "SshLink"]
