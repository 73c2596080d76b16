"""One HTML page that holds all of a report: tables, pictures as data URIs; it loads nothing."""

import base64
import html
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from overlay.sim.report.plots import Picture
from overlay.sim.report.report import Report, shown, shown_band
from overlay.sim.scenario import units

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1b2a3a; margin: 2rem auto; max-width: 62rem;
       padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
p.about, figcaption, td.source { color: #5f6c79; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .2rem 1.2rem .2rem 0; border-bottom: 1px solid #e3e7eb; }
td.number { text-align: right; } .wide { overflow-x: auto; }
.ok { color: #2e7d4f; } .missed { color: #c0392b; font-weight: 600; }
figure { margin: 1rem 0; } img { max-width: 100%; }
code, pre { font-size: .85rem; background: #f4f6f8; padding: .1rem .3rem; }
pre { padding: .8rem; overflow-x: auto; }
"""


@dataclass(frozen=True, slots=True)
class Cell:
    """A piece of text in a table; `kind` is one of the classes in `STYLE`."""

    text: str
    kind: str = ""


Row = Sequence[Cell]


def of_run(report: Report, pictures: Iterable[Picture], command: str) -> str:
    """The page of one run; `command` shows it again."""
    failure = report.failure(command)
    answer = report.as_json()
    size = (
        f"{answer['nodes']} nodes{'' if answer['full_size'] else ', not its full size: no bands'}"
    )
    facts = f"{size}; seed {answer['seed']}; profile {answer['profile']}"
    rate = f"{answer['events']} messages delivered, {answer['events_per_second']:.0f} a second"
    parts = [
        paragraph(report.scenario.about, "about"),
        paragraph(f"Reproduces: {report.scenario.source}", "about")
        if report.scenario.source
        else "",
        paragraph(failure, "missed") if failure else paragraph("every promise held", "ok"),
        paragraph(f"{facts}; {rate}."),
        _heading("Measures"),
        _measures(report),
        *_published(report),
        *(figure(each) for each in pictures),
        _heading("Again"),
        f"<pre>{html.escape(command)}</pre>",
        paragraph(f"trace hash {answer['trace_hash']}"),
        *_unlike(answer["config_diff"]),
    ]
    return document(report.name, parts)


def document(title: str, parts: Iterable[str]) -> str:
    """A whole page."""
    body = "\n".join(part for part in parts if part)
    name = html.escape(title)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{name}</h1>\n"
        f"{body}\n</body>\n</html>\n"
    )


def table(heads: Sequence[str], rows: Sequence[Row]) -> str:
    """A table; what is in it is text. Columns that are empty are left out; nothing without rows."""
    kept = [column for column, _ in enumerate(heads) if any(row[column].text for row in rows)]
    if not kept:
        return ""
    heads = [heads[column] for column in kept]
    rows = [[row[column] for column in kept] for row in rows]
    head = "".join(f"<th>{html.escape(each)}</th>" for each in heads)
    body = "\n".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f'<div class="wide"><table>\n<tr>{head}</tr>\n{body}\n</table></div>'


def figure(picture: Picture) -> str:
    """A picture under its title."""
    data = base64.b64encode(picture.png).decode()
    title = html.escape(picture.title)
    return (
        f'<figure><h2>{title}</h2><img alt="{title}" src="data:image/png;base64,{data}"></figure>'
    )


def paragraph(text: str, kind: str = "") -> str:
    """Text on its own; nothing where there is none."""
    open_tag = f'<p class="{kind}">' if kind else "<p>"
    return f"{open_tag}{html.escape(text)}</p>" if text else ""


def _cell(cell: Cell) -> str:
    kind = f' class="{cell.kind}"' if cell.kind else ""
    return f"<td{kind}>{html.escape(cell.text)}</td>"


def _measures(report: Report) -> str:
    """The measures with their units, and the bands of those that have one."""
    words = {True: Cell("ok", "ok"), False: Cell("missed", "missed"), None: Cell("")}
    rows = [
        (
            Cell(name),
            Cell(shown(verdict.value), "number"),
            Cell(units.of_measure(name)),
            Cell(shown_band(verdict.band) if verdict.band else ""),
            words[verdict.ok],
        )
        for name, verdict in report.verdicts().items()
    ]
    return table(("measure", "value", "unit", "band", ""), rows)


def _unlike(diff: Mapping[str, Any]) -> Iterator[str]:
    """The keys of the configuration that are not as they ship, if there are any."""
    if diff:
        yield _heading("Unlike the shipped configuration")
        yield f"<pre>{html.escape(json.dumps(diff, indent=1))}</pre>"


def _published(report: Report) -> Iterable[str]:
    rows = [
        (
            Cell(beside.figures.name),
            Cell(beside.measure if beside.x is None else f"{beside.measure} at {beside.x:g}"),
            Cell(f"{beside.published:g}", "number"),
            Cell(shown(beside.measured), "number"),
            Cell(units.of_measure(beside.measure)),
            Cell(beside.figures.source, "source"),
        )
        for beside in report.published()
    ]
    if rows:
        yield _heading("Beside what others have published")
        yield table(("", "measure", "published", "here", "unit", "source"), rows)


def _heading(text: str) -> str:
    return f"<h2>{html.escape(text)}</h2>"
