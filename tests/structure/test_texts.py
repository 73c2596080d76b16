"""Nothing in the package is decided by a sentence; and the rule is shown to be able to fail."""

import pytest

from tests.structure import texts
from tests.test_style import ROOT, breaches


def test_no_refusal_is_decided_by_its_text() -> None:
    assert breaches(texts.decided_by_text, "overlay", but=tuple(texts.ALLOWED)) == []


def test_every_file_that_may_decide_by_a_text_still_does() -> None:
    for name in texts.ALLOWED:
        assert list(texts.decided_by_text((ROOT / name).read_text())), name


@pytest.mark.parametrize(
    "source",
    [
        "code = 'expired' if 'expired' in grant else 'refused'",
        "def code(why: str) -> int:\n    return 1 if 'expired' in why else 2",
        "if 'expired' not in refusal.text: pass",
        "if error.text == 'the link was lost': pass",
        "if why in ('signature', 'malformed'): pass",
        "if message.startswith('malformed'): pass",
        "if text.lower().endswith('ago'): pass",
        "if 'truncated' in str(error): pass",
        "if 'truncated' in error.args[0]: pass",
        "if re.search('expired|late', sentence): pass",
        "if detail.find('late') >= 0: pass",
        "if text == ENDED: pass",
        "if why in (GONE, LATE): pass",
        "match why:\n    case 'late' | 'early': pass",
    ],
)
def test_a_decision_by_a_text_is_refused(source: str) -> None:
    (breach,) = texts.decided_by_text(source)
    assert "decided by its text" in breach
    assert breach[0].isdigit(), "the line"


@pytest.mark.parametrize(
    "source",
    [
        "if refusal.code is GoodbyeCode.EXPIRED: pass",
        "if code == 'leave': pass",
        "if not text or why == '': pass",
        "print(f'{why}: {text}')",
        "if isinstance(grant, Refusal): pass",
        "found = re.fullmatch('[0-9]+', text)",
        "if host.startswith('fe80:'): pass",
        "if text in known: pass",
        "raise ConfigError(str(error)) from None",
    ],
)
def test_texts_may_be_passed_on_shown_and_read(source: str) -> None:
    assert list(texts.decided_by_text(source)) == []
