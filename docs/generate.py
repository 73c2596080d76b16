"""Write the parts of the documentation that the code already says: ``python -m docs.generate``.

A page marks such a part with ``<!-- generated: NAME -->`` and ``<!-- end -->``; a test compares.
"""

import ast
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from docs import states
from overlay.core.stream import frames as stream_frames
from overlay.node import config

if TYPE_CHECKING:
    from overlay.tables import Key

DOCS = Path(__file__).parent
ROOT = DOCS.parent
PART = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
WIDTH = 78
"""Of the help in a terminal of 80 columns."""
STREAM_FRAMES = ROOT / "overlay" / "core" / "stream" / "frames.py"
FRAMES = ("Ready", "Open", "Ack", "Data", "Credit", "End", "Reset")
MESSAGES = ROOT / "overlay" / "core" / "wire" / "messages.py"
BODIES = ROOT / "overlay" / "core" / "wire" / "documents.py"


def structs(path: Path) -> Iterator[tuple[int | None, ast.ClassDef]]:
    """Each struct of a module, with the small integer that tags it if it is a message."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef):
            tags = [word.value for word in node.keywords if word.arg == "tag"]
            yield (ast.literal_eval(tags[0]) if tags else None), node


def fields(struct: ast.ClassDef) -> Iterator[tuple[str, str, str]]:
    """Name, type and meaning of each field, in the order of the wire."""
    for here, after in zip(struct.body, [*struct.body[1:], None], strict=True):
        if not isinstance(here, ast.AnnAssign):
            continue
        match after:
            case ast.Expr(value=ast.Constant(value=str(text))):
                meaning = " ".join(text.split())
            case _:
                meaning = ""
        yield ast.unparse(here.target), ast.unparse(here.annotation), meaning


def describe(tag: int | None, struct: ast.ClassDef) -> str:
    """One struct as a heading, its contract, and a table of its fields."""
    title = f"### {struct.name}" if tag is None else f"### {tag} · {struct.name}"
    lines = [title, "", " ".join((ast.get_docstring(struct) or "").split()), ""]
    lines += ["| field | type | |", "|---|---|---|"]
    for name, kind, meaning in fields(struct):
        shown = kind.replace("|", "\\|")
        lines.append(f"| `{name}` | `{shown}` | {meaning} |".replace("|  |", "| |"))
    return "\n".join(lines) + "\n"


def messages() -> str:
    """The control messages, by kind, and what they carry."""
    return "\n".join(describe(tag, node) for tag, node in structs(MESSAGES))


def documents() -> str:
    """What is signed or sealed, and what those carry."""
    return "\n".join(describe(tag, node) for tag, node in structs(BODIES))


def frames() -> str:
    """The frames of streams, by the byte that they begin with."""
    names = {stream_frames.FrameType[kind.upper()]: kind for kind in FRAMES}
    found = {node.name: node for _, node in structs(STREAM_FRAMES)}
    lines = ["| type | body | |", "|---|---|---|"]
    for number, name in sorted(names.items()):
        body = [f"`{field}`" for field, _, _ in fields(found[name])]
        says = " ".join((ast.get_docstring(found[name]) or "").split())
        lines.append(
            f"| {number} {name.upper()} | {', '.join(body)} | {says} |".replace("|  |", "| |")
        )
    return "\n".join(lines) + "\n"


def helps() -> dict[str, str]:
    """The help of every command, by its full name, as the terminal shows it."""
    from overlay.cli.main import overlay as cli

    return dict(_helps(cli, "overlay", None))


def commands() -> str:
    """Every command's help under a heading of its own."""
    return "\n".join(
        f"## {name}\n\n```text\n{text.rstrip()}\n```\n" for name, text in helps().items()
    )


def configuration() -> str:
    """Every key: its default, what is allowed, what it is for, the variable that sets it."""
    lines = []
    for name, key in config.keys().items():
        default = msgspec.json.encode(key.default).decode()
        lines += [f"### {name}", "", key.about, ""]
        lines += [
            f"Default `{default}`; {key.allowed}. Environment: `{config.variable(name)}`.",
            "",
        ]
    return "\n".join(lines)


def _helps(
    command: click.Command, name: str, parent: click.Context | None
) -> Iterator[tuple[str, str]]:
    settings = {**command.context_settings, "terminal_width": WIDTH}
    context = click.Context(command, info_name=name, parent=parent, **settings)
    yield context.command_path, context.get_help()
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            if found is not None and not found.hidden:
                yield from _helps(found, child, context)


def modules() -> str:
    """Every module by package, with the line that it opens with."""
    lines: list[str] = []
    for package in sorted({path.parent for path in (ROOT / "overlay").rglob("*.py")}):
        lines += [f"### {package.relative_to(ROOT)}", "", _theory(package / "__init__.py"), ""]
        files = [path for path in sorted(package.glob("*.py")) if path.name[0] != "_"]
        if files:
            lines += ["| | |", "|---|---|"]
            lines += [f"| `{path.name}` | {_theory(path)} |" for path in files]
            lines.append("")
    return "\n".join(lines)


def _theory(path: Path) -> str:
    """The first paragraph of a module's docstring, on one line of a table."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    return " ".join(text.partition("\n\n")[0].split()).replace("|", "\\|")


def scenario_keys() -> str:
    """Every key of a scenario of the simulator, by table."""
    from overlay.sim.scenario.scenario import Scenario
    from overlay.tables import keys, tables

    lines = []
    for name, table in tables(Scenario):
        title = {"": "The scenario itself"}.get(name, f"`{name}`")
        about = " ".join((table.__doc__ or "").split())
        lines += [f"### {title}", "", about, "", *_rows(keys(table)), ""]
    return "\n".join(lines)


def sweep_keys() -> str:
    """Every key of a sweep of the simulator."""
    from overlay.sim.sweep.sweep import SweepFile
    from overlay.tables import keys

    return "\n".join(_rows(keys(SweepFile))) + "\n"


def _rows(keys: "Iterable[Key]") -> list[str]:
    rows = [f"| `{key.name}` | {key.allowed} | {key.written} | {key.about} |" for key in keys]
    return ["| key | allowed | default | |", "|---|---|---|---|", *rows]


def measures() -> str:
    """Every measure of the simulator."""
    from overlay.sim.scenario.measures import KINDS
    from overlay.sim.scenario.units import of_measure

    lines = ["| measure | unit | | |", "|---|---|---|---|"]
    for when, names in KINDS:
        for name, about in names.items():
            lines.append(f"| `{name}` | {of_measure(name)} | {about} | {when} |")
    return "\n".join(lines) + "\n"


STATES = {f"states-{name}": partial(states.part, name) for name in states.MACHINES}
PARTS: dict[str, Callable[[], str]] = {
    **STATES,
    "messages": messages,
    "documents": documents,
    "frames": frames,
    "commands": commands,
    "configuration": configuration,
    "modules": modules,
    "scenario": scenario_keys,
    "sweep": sweep_keys,
    "measures": measures,
}


def generated(text: str) -> str:
    """A page with its generated parts as they should be."""
    return PART.sub(lambda part: f"{part[1]}{PARTS[part[2]]()}{part[3]}", text)


def pages() -> list[Path]:
    """Every page that has a generated part."""
    return [page for page in sorted(DOCS.rglob("*.md")) if PART.search(page.read_text())]


def main() -> None:
    """Write what differs and name it."""
    for page in pages():
        before = page.read_text()
        after = generated(before)
        if after != before:
            page.write_text(after)
            sys.stdout.write(f"wrote {page.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
