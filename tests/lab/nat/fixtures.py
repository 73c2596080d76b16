"""The one laboratory of a test run. It stands alone because pytest loads it as a plugin."""

from collections.abc import Iterator

import pytest

from tests.lab.namespaces import why_unavailable
from tests.lab.nat.laboratory import Laboratory


@pytest.fixture(scope="session")
def laboratory() -> Iterator[Laboratory]:
    """Stands until the run ends: take homes that a test leaves as they were from `standing`."""
    if why := why_unavailable():
        pytest.skip(why)
    with Laboratory() as laboratory:
        yield laboratory
