"""What nodes of a scenario are set to: the shipped defaults, a profile, the scenario's own word."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import msgspec

from overlay.core.context import Settings
from overlay.sim.scenario import Scenario

FIELDS = {
    "auto": "auto",
    "direct": "direct",
    "full_mesh": "mesh_size",
    "active": "active_size",
    "passive": "passive_size",
    "max": "links_max",
    "policy": "passive_policy",
}
"""A key of ``[links]``, as people know it; and what the core calls it."""
PROFILES: Mapping[str, Mapping[str, Any]] = {
    "product": {},
    "paper": {"full_mesh": 0, "active": 5, "passive": 30, "policy": "paper"},
}
"""What a profile sets. Values of `paper`: HyParView §5.1."""


def chosen(scenario: Scenario) -> dict[str, Any]:
    """What each node of this scenario is born with, as `Settings` names it."""
    return {FIELDS[key]: value for key, value in _links(scenario).items()}


def config_diff(scenario: Scenario) -> dict[str, Any]:
    """The configuration keys that are unlike the shipped defaults, and their values."""
    shipped = {field.name: field.default for field in dataclasses.fields(Settings)}
    links = _links(scenario).items()
    return {f"links.{key}": value for key, value in links if value != shipped[FIELDS[key]]}


def _links(scenario: Scenario) -> dict[str, Any]:
    own = msgspec.structs.asdict(scenario.links)
    said = {key: value for key, value in own.items() if value is not None}
    return {**PROFILES[scenario.profile], **said}
