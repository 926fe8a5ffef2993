"""Fixtures for every folder: the command line, and boards behind a real sshd; and what hypothesis takes for granted."""

from hypothesis import settings

pytest_plugins = ["tests.support.boards", "tests.support.command"]

settings.register_profile("edgekit", deadline=None)  # an example takes as long as a busy machine makes it take
settings.load_profile("edgekit")
