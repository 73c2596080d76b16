"""State diagrams, drawn from the tables that the code goes by: ``python -m docs.states`` (JSON)."""

import ast
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from overlay.core.connect import attempts
from overlay.core.ice import states as ice_states
from overlay.core.link import links
from overlay.core.stream import states as stream_states

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Machine:
    """A table of transitions; its first state is where it starts unless `starts` says otherwise."""

    states: type[StrEnum]
    table: Mapping[Any, Mapping[Any, Any]]
    starts: tuple[StrEnum, ...] = ()


MACHINES = {
    "link": Machine(links.LinkState, links.TRANSITIONS),
    "climb": Machine(attempts.Step, attempts.STEPS),  # programs read this name
    "sending": Machine(stream_states.Sending, stream_states.SENDING),
    "receiving": Machine(
        stream_states.Receiving,
        stream_states.RECEIVING,
        (stream_states.Receiving.UNANSWERED, stream_states.Receiving.OPEN),
    ),
    "agent": Machine(ice_states.AgentState, ice_states.AGENT),
    "pair": Machine(ice_states.PairState, ice_states.PAIR),
    "liveliness": Machine(ice_states.Liveliness, ice_states.LIVELINESS),
}


def transitions() -> dict[str, dict[str, dict[str, str]]]:
    """Of each machine: state, event, next state, as the running code has them."""
    return {
        name: {
            str(state): {str(event): str(after) for event, after in row.items()}
            for state, row in machine.table.items()
        }
        for name, machine in MACHINES.items()
    }


def diagram(machine: Machine) -> str:
    """The table as Mermaid draws it; events that lead the same way share an arrow."""
    lines = ["```mermaid", "stateDiagram-v2"]
    lines += [f'    state "{s}" as {_name(s)}' for s in machine.states if _name(s) != s]
    lines += [f"    [*] --> {_name(s)}" for s in machine.starts or (next(iter(machine.table)),)]
    for state, row in machine.table.items():
        ways: dict[str, list[str]] = {}
        for event in sorted(row, key=_rank):
            ways.setdefault(row[event], []).append(event)
        for after, events in ways.items():
            lines.append(f"    {_name(state)} --> {_name(after)}: {' / '.join(events)}")
        if not row:
            lines.append(f"    {_name(state)} --> [*]")
    return "\n".join([*lines, "```"])


def meanings(machine: Machine) -> str:
    """Every state, with the line that stands beneath it in the code."""
    lines = ["| state | |", "|---|---|"]
    lines += [f"| {state} | {_meaning(machine, state)} |" for state in machine.states]
    return "\n".join(lines)


def part(name: str) -> str:
    """A machine as the documentation shows it."""
    machine = MACHINES[name]
    return f"{diagram(machine)}\n\n{meanings(machine)}\n"


def _rank(event: StrEnum) -> int:
    return list(type(event)).index(event)


def _name(state: str) -> str:
    return state.replace(" ", "_")


def _meaning(machine: Machine, state: StrEnum) -> str:
    source = (ROOT / (machine.states.__module__.replace(".", "/") + ".py")).read_text()
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and node.name == machine.states.__name__:
            for here, after in zip(node.body, node.body[1:], strict=False):
                match here, after:
                    case (
                        ast.Assign(targets=[ast.Name(id=state.name)]),
                        ast.Expr(value=ast.Constant(value=str(text))),
                    ):
                        return " ".join(text.split()).replace("|", "\\|")
    raise ValueError(f"{machine.states.__name__}.{state.name} does not say what it means")


if __name__ == "__main__":
    json.dump(transitions(), sys.stdout, indent=1, ensure_ascii=False)
    sys.stdout.write("\n")
