"""The arrows of the package, read from the source: circles, and modules that fall out of a layer.

import-linter holds the same layers (`make check`). It is asked twice because a circle inside a
package breaks none of its contracts, and because whoever runs only the tests should hear of both.
"""

import ast
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

Arrows = dict[str, dict[str, int]]
"""Of each module: what it imports, and in which line."""


def imports(root: Path, top: str = "overlay") -> Arrows:
    """Every import of every module, those inside functions and for type checkers included."""
    names = {_name(root, path): path for path in sorted((root / top).rglob("*.py"))}
    arrows: Arrows = {name: {} for name in names}
    for name, path in names.items():
        for node in ast.walk(ast.parse(path.read_text())):
            for target in _targets(node, names):
                if target != name:
                    arrows[name].setdefault(target, node.lineno)  # type: ignore[attr-defined]
    return arrows


def _name(root: Path, path: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _targets(node: ast.AST, names: Mapping[str, Path]) -> Iterator[str]:
    match node:
        case ast.Import(names=aliases):
            yield from (alias.name for alias in aliases if alias.name in names)
        case ast.ImportFrom(module=str(module), names=aliases, level=0):
            for alias in aliases:
                inner = f"{module}.{alias.name}"
                if inner in names or module in names:
                    yield inner if inner in names else module


def circle(arrows: Mapping[str, Mapping[str, int]]) -> list[str]:
    """What is in circles, or between them; empty when there is none."""
    left = {name: set(targets) for name, targets in arrows.items()}
    while free := [name for name, targets in left.items() if not targets & left.keys()]:
        for name in free:
            del left[name]
    used = {name: {other for other in left if name in left[other]} for name in left}
    while free := [name for name, users in used.items() if not users & used.keys()]:
        for name in free:
            del used[name]
    return sorted(used)


def layers(root: Path) -> dict[str, list[list[str]]]:
    """The layers of each package that has some, from the top, as `pyproject.toml` has them."""
    settings = tomllib.loads((root / "pyproject.toml").read_text())
    found = {}
    for contract in settings["tool"]["importlinter"]["contracts"]:
        for package in contract.get("containers", ()):
            found[package] = [
                [f"{package}.{name.strip(' ()')}" for name in layer.split("|")]
                for layer in contract["layers"]
            ]
    return found


def out_of_layer(arrows: Arrows, package: str, order: list[list[str]]) -> Iterator[str]:
    """Every arrow from a layer to one above it or beside it."""
    rank = {name: number for number, layer in enumerate(order) for name in layer}
    for module, targets in arrows.items():
        here = _layer(module, package)
        if here is not None and here not in rank:
            yield f"{file_of(module)}: no layer of {package} has it"
        for target, line in targets.items():
            there = _layer(target, package)
            if here in rank and there in rank and here != there and rank[here] >= rank[there]:
                yield f"{file_of(module)}:{line}: {target} is not in a layer below"


def _layer(module: str, package: str) -> str | None:
    """The part of `package` that a module belongs to; None outside, and for the package itself."""
    if not module.startswith(package + "."):
        return None
    return f"{package}.{module.removeprefix(package + '.').partition('.')[0]}"


def file_of(module: str) -> str:
    """Where a module stands, for a message."""
    return module.replace(".", "/") + ".py"
