"""From a scenario to the settings of its nodes (defaults, profile, its own) and its network's."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import msgspec

from overlay.core.context import Settings
from overlay.sim.network.conditions import Conditions, Latencies, Matrix, Plane
from overlay.sim.scenario.scenario import BASE, Scenario

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
PAPER: Mapping[str, Any] = {
    "mesh_size": 0,
    "active_size": 5,
    "passive_size": 30,
    "ring_side": 0,
    "long_links": 0,
    "records_spread": 0,
    "records_max": 128,
    "resort": False,
    "offers": False,
    "guest_stay": 2.0,
    "passive_policy": "paper",
}
"""HyParView §5.1, and nothing that the paper does not have: a connection that no view holds is
closed (here soon), a connection is opened by dialling, whoever is in no view is forgotten."""
PROFILES: Mapping[str, Mapping[str, Any]] = {"product": {}, "paper": PAPER}
"""What a profile sets, as `Settings` names it."""


def chosen(scenario: Scenario) -> dict[str, Any]:
    """What each node of this scenario is born with, as `Settings` names it."""
    own = msgspec.structs.asdict(scenario.links)
    said = {FIELDS[key]: value for key, value in own.items() if value is not None}
    if scenario.dissemination == "flood":
        said["flood"] = True
    if scenario.cycle is not None:
        said["shuffle_interval"] = said["exchange_interval"] = scenario.cycle
    return {**PROFILES[scenario.profile], **said}


def setting(scenario: Scenario, name: str) -> Any:
    """What every node of this scenario has for one of the `Settings`."""
    return {**_shipped(), **chosen(scenario)}[name]


def config_diff(scenario: Scenario) -> dict[str, Any]:
    """What is unlike the shipped defaults; what people can configure by the key that they know."""
    shipped = _shipped()
    keys = {field: f"links.{key}" for key, field in FIELDS.items()}
    values = chosen(scenario).items()
    return {keys.get(name, name): value for name, value in values if value != shipped[name]}


def _shipped() -> dict[str, Any]:
    return {field.name: field.default for field in dataclasses.fields(Settings)}


def conditions_of(scenario: Scenario) -> Conditions:
    """What the network of this scenario does to packets."""
    network = scenario.network
    return Conditions(
        latency=network.latency,
        between=_between(scenario),
        jitter=network.jitter,
        loss=network.loss,
        reordering=network.reordering,
        bandwidth=network.bandwidth,
    )


def _between(scenario: Scenario) -> Latencies | None:
    network = scenario.network
    if network.coordinates is not None:
        base = BASE if network.base is None else network.base
        return Plane(scenario.seed, network.coordinates, base)
    if network.matrix is not None:
        assert not isinstance(network.matrix, str), "its rows are read with the scenario"
        return Matrix(network.matrix)
    return None
