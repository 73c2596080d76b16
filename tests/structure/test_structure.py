"""The structure of the tree, and each of its rules shown to be able to fail."""

from pathlib import Path

import pytest

from tests.structure import arrows, reach

ROOT = Path(__file__).resolve().parents[2]


def test_no_module_is_in_a_circle() -> None:
    assert arrows.circle(arrows.imports(ROOT)) == []


def test_every_module_keeps_to_its_layer() -> None:
    found = arrows.imports(ROOT)
    layers = arrows.layers(ROOT)
    assert {"overlay.core", "overlay.sim", "overlay.transport"} <= layers.keys()
    for package, order in layers.items():
        assert list(arrows.out_of_layer(found, package, order)) == []


def test_no_package_reaches_into_anothers_objects() -> None:
    assert list(reach.reaches(reach.Tree(ROOT))) == []


# --- each rule can be broken ---------------------------------------------------------------------


def written(root: Path, files: dict[str, str]) -> Path:
    """A tree of modules for a rule to look at."""
    for name, source in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
        for parent in path.relative_to(root).parents[:-1]:
            (root / parent / "__init__.py").touch()
    return root


@pytest.mark.parametrize(
    "source",
    [
        "import overlay.b",
        "def late():\n    from overlay import b",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from overlay.b import X",
    ],
    ids=["top", "in a function", "for types"],
)
def test_a_circle_is_seen(tmp_path: Path, source: str) -> None:
    root = written(
        tmp_path,
        {
            "overlay/a.py": source,
            "overlay/b.py": "import overlay.c",
            "overlay/c.py": "import overlay.a",
            "overlay/above.py": "import overlay.a",
            "overlay/below.py": "",
        },
    )
    assert arrows.circle(arrows.imports(root)) == ["overlay.a", "overlay.b", "overlay.c"]


def test_an_arrow_to_a_layer_above_or_beside_is_seen(tmp_path: Path) -> None:
    root = written(
        tmp_path,
        {
            "overlay/core/high/x.py": "from overlay.core import low",
            "overlay/core/beside.py": "from overlay.core.high import x",
            "overlay/core/low.py": "def late():\n    import overlay.core.high.x",
            "overlay/core/lost.py": "",
        },
    )
    order = [["overlay.core.high", "overlay.core.beside"], ["overlay.core.low"]]
    found = list(arrows.out_of_layer(arrows.imports(root), "overlay.core", order))
    assert found == [
        "overlay/core/beside.py:1: overlay.core.high.x is not in a layer below",
        "overlay/core/lost.py: no layer of overlay.core has it",
        "overlay/core/low.py:2: overlay.core.high.x is not in a layer below",
    ]


OWNER = """
from dataclasses import dataclass, field

@dataclass
class Item:
    size: int

class Machine:
    count: int = 0
    def __init__(self) -> None:
        self.items: dict[str, Item] = {}
        self.inner = Inner()
    def add(self, item: Item) -> Item:
        return item
    def get(self, name: str) -> Item | None:
        return self.items.get(name)

class Inner:
    def pop(self) -> None: ...
"""
USER = "from overlay.low.machine import Item, Machine\n\nclass User:\n    def __init__(self, machine: Machine) -> None:\n        self._machine = machine\n        self._own: dict[str, Item] = {}\n\n    def f(self, item: Item) -> None:\n        "  # noqa: E501


def reached(root: Path, statement: str) -> list[str]:
    files = {"overlay/low/machine.py": OWNER, "overlay/high/user.py": USER + statement + "\n"}
    return list(reach.reaches(reach.Tree(written(root, files))))


@pytest.mark.parametrize(
    "statement",
    [
        "self._machine.count = 1",
        "self._machine.count += 1",
        "self._machine.items['a'] = item",
        "self._machine.items.clear()",
        "self._machine.items['a'].size = 2",
        "del self._machine.items['a']",
        "item.size = 3",
        "found = self._machine.get('a')\n        found.size = 4",
        "for each in self._machine.items:\n            self._machine.items.pop(each)",
        "self._own['a'].size = 5",
        "(self.a, item.size) = 1, 2",
    ],
)
def test_reaching_into_another_packages_object_is_seen(tmp_path: Path, statement: str) -> None:
    (found,) = reached(tmp_path, statement)
    assert found.startswith("overlay/high/user.py:")


@pytest.mark.parametrize(
    "statement",
    [
        "self._machine.add(item)",
        "self._machine.inner.pop()",
        "self._own['a'] = item",
        "self._own.clear()",
        "made = Machine()\n        made.count = 1",
        "n = self._machine.items['a'].size",
        "self._machine = Machine()",
    ],
)
def test_calling_what_is_below_is_not_reaching(tmp_path: Path, statement: str) -> None:
    assert reached(tmp_path, statement) == []
