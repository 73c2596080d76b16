"""Fixtures that the whole run shares; it stands alone because pytest takes plugins from here only.

`tests/conftest.py` is copied into trees of its own by a test, and knows nothing of this one.
"""

pytest_plugins = ["tests.lab.nat.fixtures"]
