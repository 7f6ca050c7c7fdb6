"""The names in the definitions of the state machines: those of a stack, or CloudFormation's holes for them."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Names:
    """What differs from stack to stack; every field is a text, also the numbers.

    ``instance_types`` and ``data_places`` are lists with commas between. ``topic_arn`` is empty without one;
    ``intake_machine`` and ``search_machine`` are ARNs, used by one definition each (none can name itself).
    """

    partition: str
    region: str
    account: str
    stack: str
    bucket: str
    store_prefix: str
    queue_arn: str
    max_vcpus: str
    environments: str
    instance_types: str
    data_places: str
    spec_prefix: str
    data_prefix: str
    topic_arn: str
    max_cells: str
    max_task_vcpus: str
    max_task_memory_gib: str
    max_hours: str
    max_vcpu_hours: str
    search_machine: str = ""


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


HOLES = Names(**{field.name: f"${{{_camel(field.name)}}}" for field in fields(Names)})
"""What CloudFormation fills in (``DefinitionSubstitutions``): a hole for each field, by its name."""
