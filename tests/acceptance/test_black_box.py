"""That naming the project's own tests proves something: whoever takes one away is found out."""

from pathlib import Path

import pytest

from tests.acceptance import black_box

SOURCE = """
import pytest

def test_what_is_sealed_matches_rfc_9180(): ...

{mark}
@pytest.mark.parametrize("one", [1])
async def test_hpke_of_another_key_does_not_open(one): ...

def check_rfc(): ...
"""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(black_box, "ROOT", tmp_path)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_seal.py").write_text(SOURCE.format(mark=""))
    return tmp_path


@pytest.mark.parametrize("path", ["tests", "tests/test_seal.py"])
def test_tests_are_found_by_file_and_by_name(tree: Path, path: str) -> None:
    named = black_box.tests_named
    assert [*named(path, "rfc or hpke")] == [
        "tests/test_seal.py::test_what_is_sealed_matches_rfc_9180",
        "tests/test_seal.py::test_hpke_of_another_key_does_not_open",
    ]
    assert len(named(path, "seal and not (hpke or open)")) == 1
    assert len(named(path, "9180")) == 1
    black_box.suite(path, "rfc or hpke")


def test_a_test_that_is_gone_is_missed(tree: Path) -> None:
    with pytest.raises(AssertionError, match="no test in tests is named 5769"):
        black_box.suite("tests", "5769")


@pytest.mark.parametrize("mark", ["skip", "skipif(True, reason='')", "xfail(strict=True)", "soak"])
def test_a_test_that_does_not_run_proves_nothing(tree: Path, mark: str) -> None:
    text = SOURCE.format(mark=f"@pytest.mark.{mark}")
    (tree / "tests" / "test_seal.py").write_text(text)
    black_box.suite("tests", "rfc")
    with pytest.raises(AssertionError, match=r"hpke.* proves nothing"):
        black_box.suite("tests", "rfc or hpke")
    (tree / "tests" / "test_seal.py").write_text(f"pytestmark = pytest.mark.{mark}\n{SOURCE}")
    with pytest.raises(AssertionError, match=r"9180 proves nothing"):
        black_box.suite("tests", "rfc")
