"""What comments and pages cite can be opened; and the rule is shown to be able to fail."""

import pytest

from tests.structure import citations
from tests.structure.citations import Repository, lead_nowhere

REPOSITORY = Repository(
    {
        "overlay/core/timers.py": "class Timers:\n    due: int\n    def set(self): self.at = 1\n",
        "overlay/core/__init__.py": "",
        "docs/decisions/0003-two-machines.md": "",
    }
)


def test_what_is_cited_is_in_the_repository() -> None:
    assert citations.listing(*citations.PAGES) == []


@pytest.mark.parametrize(
    "source",
    [
        "def cited() -> None:\n    '''As DESIGN says.'''",
        "LIMIT = 1\n'''Seconds (issue: 1 s each).'''",
        "LIMIT = 1  # DESIGN.md, the door",
        "# as HOUSE has it",
        "'''Steps 4 and 5 follow in later orders.'''",
        "'''What M4 promises.'''",
        "'''See `overlay/core/clock.py`.'''",
        "'''See `overlay.core.timers.Agenda`.'''",
        "'''See `overlay.core.timers.Timers.clear`.'''",
        "'''See `overlay.core.clock`.'''",
        "'''See `clock.py`.'''",
        "# see docs/decisions/0004-dial-tokens.md",
        "# decision 0004",
    ],
)
def test_a_citation_that_leads_nowhere_is_refused(source: str) -> None:
    assert list(lead_nowhere("module.py", source, REPOSITORY))


@pytest.mark.parametrize(
    "source",
    [
        "'''RFC 8445 §5.3; HyParView §4.2.'''",
        "'''See `overlay/core/timers.py`, `overlay.core.timers.Timers.set` and `overlay.core`.'''",
        "'''See `overlay.core.timers.Timers.due` and `overlay.core.timers.Timers.at`.'''",
        "# see docs/decisions/0003-two-machines.md, which is decision 0003, and docs/decisions/",
        "DESIGN = 'not a citation'",
        "'''Signed by the issuer, in this order; `STYLE` is a name.'''",
    ],
)
def test_a_citation_that_can_be_opened_is_not(source: str) -> None:
    assert list(lead_nowhere("module.py", source, REPOSITORY)) == []


def test_a_page_is_read_from_its_first_line_to_its_last() -> None:
    page = "# Timers\n\nAs `overlay.core.timers` has it.\n\nSee `overlay/core/clock.py`.\n"
    (breach,) = lead_nowhere("docs/timers.md", page, REPOSITORY)
    assert breach.startswith("5: cites overlay/core/clock.py")
