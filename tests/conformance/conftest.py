from __future__ import annotations

from hypothesis import settings

# The same examples on every run: what fails once fails again.
settings.register_profile("edgekit", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("edgekit")
