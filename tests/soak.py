"""What of many cases runs every day; the others are left to ``make soak``.

It stands alone because tests of every room ask for it.
"""

from collections.abc import Collection, Sequence
from typing import Any

import pytest


def everyday(chosen: Collection[Any], cases: Sequence[Any]) -> list[Any]:
    """All the cases for ``parametrize``; those that are not chosen are marked ``soak``."""
    left = [case for case in cases if case not in chosen]
    assert len(left) < len(cases), "nothing would be left for every day"
    return [
        *(case for case in cases if case in chosen),
        *(pytest.param(*_values(case), marks=pytest.mark.soak) for case in left),
    ]


def _values(case: Any) -> tuple[Any, ...]:
    return case if isinstance(case, tuple) else (case,)
