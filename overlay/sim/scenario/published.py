"""Figures that others have published, as a scenario carries them: a run is shown beside them."""

from typing import Annotated

from msgspec import Meta

from overlay.tables import Table


class Published(Table, frozen=True, kw_only=True):
    """Figures that somebody has published, to be shown beside what is measured here."""

    name: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=80,
            description="What they are called in a report.",
            extra={"allowed": "a text of 1 to 80 characters"},
        ),
    ]
    source: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=200,
            description="Who published them, and where.",
            extra={"allowed": "a text of 1 to 200 characters"},
        ),
    ]
    measures: Annotated[
        tuple[str, ...],
        Meta(
            min_length=1,
            max_length=1000,
            description="The measures that the figures are for, one each; with `along`, one "
            "measure for all.",
            extra={"allowed": "names of measures of this scenario"},
        ),
    ]
    values: Annotated[
        tuple[float, ...],
        Meta(
            min_length=1,
            max_length=1000,
            description="The figures.",
            extra={"allowed": "as many numbers as `measures`, or as `x`"},
        ),
    ]
    x: Annotated[
        tuple[float, ...],
        Meta(
            max_length=1000,
            description="Where the figures lie on a curve; without it they are only told.",
            extra={"allowed": "as many numbers as `values`", "default": "no curve"},
        ),
    ] = ()
    label: Annotated[
        str,
        Meta(
            max_length=80,
            description="What `x` is, for people.",
            extra={"allowed": "a text of at most 80 characters", "default": "that of `along`"},
        ),
    ] = ""
    along: Annotated[
        str,
        Meta(
            max_length=80,
            description="The key whose values `x` are, such as `nodes`: each run has one point of "
            "the curve, and a sweep along the key all of it.",
            extra={"allowed": "a key as `--set` has it", "default": "none"},
        ),
    ] = ""
