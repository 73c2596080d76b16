"""Comments and pages cite what a reader can open: files of this repository, RFCs, papers.

``python -m tests.structure.citations`` prints every citation that leads nowhere.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from tests.test_style import ROOT, tracked

ELSEWHERE = re.compile(
    r"\b(?:DESIGN|HOUSE|FACTS|STYLE)(?:\.md)?\b|\bthe issue\b|\bissue:|\blater orders?\b"
    r"|\b(?:NAT|next) orders?\b|\bM[1-9]\b"
)
"""Papers that lie on somebody's desk and not in the repository."""
TOPS = "overlay|tests|docs|demos|benchmarks|configs|simulations"
PATH = re.compile(rf"(?<![\w/.-])(?:{TOPS})/[\w./*-]*\w")
DECISION = re.compile(r"\bdecisions? (\d{4})\b")
QUOTED = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
DOTTED = re.compile(r"(?:overlay|tests|docs|demos|benchmarks)(?:\.(?!py\b)\w+)+")
FILE = re.compile(r"\w+\.py")
OURS_TO_NAME = frozenset({"overlay.db", "overlay.toml"})
"""Files of a user that look like a module's name."""
PAGES = ("*.py", "*.md")
OTHERS = ("tests/acceptance/", "CHANGELOG.md")
"""What was promised, and what has been: both name what is not there."""


class Repository:
    """What a citation can lead to: files, modules, and the names in them."""

    def __init__(self, files: dict[str, str]) -> None:
        """`files`: what each holds, by its path from the root."""
        self.files = files

    @cached_property
    def folders(self) -> frozenset[str]:
        """Every folder that a file lies in."""
        return frozenset(str(parent) for name in self.files for parent in Path(name).parents)

    @cached_property
    def basenames(self) -> frozenset[str]:
        """What files are called in their folders."""
        return frozenset(Path(name).name for name in self.files)

    def has_path(self, path: str) -> bool:
        """Whether there is such a file or folder; ``*`` stands for anything."""
        if "*" in path:
            return any(Path(name).match(path) for name in [*self.files, *self.folders])
        return path.rstrip("/") in self.files or path.rstrip("/") in self.folders

    def has_name(self, dotted: str) -> bool:
        """Whether this is a module, or something defined in one."""
        parts = dotted.split(".")
        for count in range(len(parts), 0, -1):
            base = "/".join(parts[:count])
            for path in (f"{base}.py", f"{base}/__init__.py"):
                if path in self.files and _defines(ast.parse(self.files[path]), parts[count:]):
                    return True
        return False


def _defines(scope: ast.AST, names: list[str]) -> bool:
    """Whether the first name is defined in this scope, the second in that, and so on."""
    if not names:
        return True
    return any(name == names[0] and _defines(node, names[1:]) for name, node in _members(scope))


def _members(scope: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """What a module or class defines: classes, functions, constants, fields, attributes."""
    for node in ast.walk(scope):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                yield name, node
            case ast.AsyncFunctionDef(name=name) | ast.alias(name=name):
                yield name, node
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name, node


def lead_nowhere(name: str, source: str, repository: Repository) -> Iterator[str]:
    """The citations in a page, or in the docstrings and comments of a module, that lead nowhere."""
    passages = _remarks(source) if name.endswith(".py") else enumerate(source.splitlines(), 1)
    for number, passage in passages:
        for cited in _unknown(passage, repository):
            yield f"{number}: cites {cited}, which is not in the repository"


def _remarks(source: str) -> Iterator[tuple[int, str]]:
    """Every line of every docstring and comment, with its number."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text), lineno=first)):
                yield from enumerate(text.splitlines(), first)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def _unknown(passage: str, repository: Repository) -> Iterator[str]:
    quoted = QUOTED.findall(passage)
    yield from ELSEWHERE.findall(QUOTED.sub("", passage))
    yield from (path for path in PATH.findall(passage) if not repository.has_path(path))
    for number in DECISION.findall(passage):
        if not repository.has_path(f"docs/decisions/{number}-*.md"):
            yield f"decision {number}"
    for each in quoted:
        if FILE.fullmatch(each) and each not in repository.basenames:
            yield each
        found = DOTTED.match(each)
        if found and found[0] not in OURS_TO_NAME and not repository.has_name(found[0]):
            yield found[0]


def repository() -> Repository:
    """This one."""
    files = {}
    for path in tracked():
        readable = path.suffix in {".py", ".md"}
        files[str(path.relative_to(ROOT))] = path.read_text() if readable else ""
    return Repository(files)


def listing(*patterns: str) -> list[str]:
    """What leads nowhere in the files that the patterns name."""
    known, found = repository(), []
    for path in tracked(*patterns):
        name = str(path.relative_to(ROOT))
        if not name.startswith(OTHERS) and path.suffix in {".py", ".md"}:
            found += [f"{name}:{each}" for each in lead_nowhere(name, path.read_text(), known)]
    return found


if __name__ == "__main__":
    left = listing(*sys.argv[1:] or PAGES)
    sys.stdout.write("".join(f"{each}\n" for each in left))
    sys.exit(bool(left))
