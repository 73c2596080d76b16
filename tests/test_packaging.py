"""What is installed where: pins, constraints, licence, version, and the manual in the Makefile."""

import importlib.metadata
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import overlay

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONSTRAINTS = (ROOT / "constraints.txt").read_text().splitlines()


def wanted() -> list[Requirement]:
    """Every requirement that pyproject.toml names, those of the extras too."""
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    return [Requirement(text) for group in groups for text in group]


def test_constraints_are_names_and_versions_and_say_nothing_of_where_from() -> None:
    for line in CONSTRAINTS:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.!+]*", line), line
    assert sorted(CONSTRAINTS, key=str.lower) == CONSTRAINTS


def test_every_dependency_is_held_by_the_constraints_within_its_bounds() -> None:
    held = dict(line.split("==") for line in CONSTRAINTS)
    held = {canonicalize_name(name): version for name, version in held.items()}
    for requirement in wanted():
        version = held[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), requirement


def test_what_we_subclass_is_pinned_exactly_and_the_rest_only_bounded_from_below() -> None:
    exact = {r.name for r in wanted() if any(s.operator == "==" for s in r.specifier)}
    assert exact == {"aiortc", "aioice"}
    for requirement in wanted():
        assert {s.operator for s in requirement.specifier} <= {"==", ">="}, requirement


@pytest.mark.parametrize("extra", PROJECT["optional-dependencies"])
def test_every_extra_is_installed_where_all_is_tested(extra: str) -> None:
    """As its constraints say; a machine that could not build one skips, and CI does not."""
    held = dict(line.split("==") for line in CONSTRAINTS)
    held = {canonicalize_name(name): version for name, version in held.items()}
    for text in PROJECT["optional-dependencies"][extra]:
        name = Requirement(text).name
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pytest.skip(f"{name} of the extra {extra!r} is not installed: `make test` does it")
        assert version == held[canonicalize_name(name)], name


def test_the_licence_is_here_in_full() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert PROJECT["license"] == "Apache-2.0"


def test_the_changelog_names_this_version() -> None:
    versions = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert overlay.__version__ in versions


def test_the_package_says_that_it_is_typed() -> None:
    assert (ROOT / "overlay" / "py.typed").is_file()


def test_the_makefile_is_a_manual_and_every_target_is_in_it() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = subprocess.run(["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True)
    assert targets == set(re.findall(r"^  make ([a-z0-9-]+)", shown.stdout, re.MULTILINE))
    assert {"run", "join", "test", "check", "bench", "demo", "demo-firewalled"} <= targets
    assert max(map(len, shown.stdout.splitlines())) <= 80


def test_ci_runs_the_tests_with_skips_forbidden() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert "FORBID_SKIPS=1" in script
    assert script.rstrip().endswith("make test"), "pytest's summary has to be the last line"
