"""Fixtures for every folder: the command line, and boards behind a real sshd."""

pytest_plugins = ["tests.support.boards", "tests.support.command"]
