"""What the search machine, the planner in its container and a desk say to each other, as JSON.

A state machine can compose and pass on such documents, but hardly compute: whatever needs thought is in here ready to
use. Every key is always there, since JSONPath fails on one that is missing.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field

from jobspec.search.inspection import Document

FORMAT_VERSION: Final = 2
"""Of orders. Raise it when a key of `Order`, `Ask` or `Site` is added, goes or changes its meaning.

Desk, machine and image may be of different versions, and executions that are under way keep the definition that they
were started with. The machine reads the keys of an order of its own version alone, and ends in words at any other.
"""

ONE_VERSION: Final = (
    "type `submit infra up`, then `submit image build` and `submit image push`, with the same foldfleet as at the desk"
)
"""What helps where they differ."""

Next = Literal["prepare", "send", "reduce", "follow", "done", "refuse"]
"""What the machine does next.

``prepare``: have the data prepared, then plan again. ``send``: the arrays of the committed round, then reduce.
``reduce``: every cell has a row, only views or model are missing. ``follow``: another owner works on the newest
round; wait for it, then plan again with the round in ``over``. ``done``: nothing is left to do. ``refuse``: ``error``
says why.
"""


class Ceilings(Document):
    """What a spec may ask for that no person started from a desk; parameters of the stack."""

    max_cells: int
    max_task_vcpus: int
    max_task_memory_gib: float
    max_hours: float
    max_vcpu_hours: float


class Site(Document):
    """Where an execution belongs: constants of the stack, which no input can change.

    ``max_vcpus`` is what each of its compute environments may start, of which there are ``environments``.
    ``instance_types`` and ``data_places`` are lists with commas between; places are ARNs as in
    ``arn:aws:s3:::BUCKET/incoming/*``. ``spec_prefix`` and ``data_prefix`` are empty
    where nothing is watched.
    """

    stack: str
    region: str
    account: str
    bucket: str
    store: str
    max_vcpus: int
    environments: int
    instance_types: str
    machine: str
    data_places: str
    spec_prefix: str
    data_prefix: str
    ceilings: Ceilings


class Upload(Document):
    """An object whose arrival started an execution, as EventBridge told it; empty where it did not.

    ``kind`` says under which prefix it came: a spec itself, or data for a template spec.
    """

    kind: Literal["spec", "data"]
    bucket: str
    key: str
    version: str = ""
    etag: str = ""
    size: int = 0
    sequencer: str = ""
    time: str = ""
    reason: str = ""


class Ask(Document):
    """What the machine asks of the planner; exactly one of ``spec`` (an s3:// URL), ``upload`` and ``run`` is given.

    ``execution`` is the ARN of the execution, whose own arrays have ended whenever it asks; ``over`` names the round
    whose other owner is known to have ended, -1 for none. ``deadline`` is in seconds since 1970, 0 before the first
    plan. ``prepared`` is the token under which a prepare step answered.
    """

    execution: str
    spec: str | None = None
    upload: Upload | None = None
    run: str | None = None
    over: int = -1
    deadline: float = 0.0
    prepared: str | None = None


class Owner(Document):
    """Who works on a round that is to be followed: an execution, or a request of AWS Batch by id or else by name."""

    execution: str = ""
    job: str = ""
    name: str = ""


class Prepare(Document):
    """The prepare step that the machine is to start."""

    definition: str
    name: str
    spec: str
    token: str


class Error(Document):
    """Why nothing was started: an exit code of the command line, and the paragraph that goes with it."""

    exit: int
    message: str


class Order(Document):
    """What the planner answers, and what a desk puts into the input of an execution.

    ``plan`` is the object in ``bucket`` that commits the round; the machine reads the sizes of its arrays from there.
    ``name`` begins the names of its requests (``{name}-a0``, ``{name}-reduce``). ``parameters`` are those of every
    array but ``first_task``; ``overrides``, ``tags`` and ``timeout`` are spelled as Step Functions hands them to Batch
    (PascalCase). ``work_seconds`` is how long the arrays may take in all, ``step_seconds`` a step before or
    behind them. ``summary`` is that of the views where everything is done: ``cells``, ``best`` and ``files``.
    """

    format_version: Literal[2] = FORMAT_VERSION
    next: Next
    run_id: str = ""
    round: int = -1
    bucket: str = ""
    plan: str = ""
    name: str = ""
    definitions: dict[str, str] = Field(default_factory=dict)
    parameters: dict[str, str] = Field(default_factory=dict)
    overrides: dict[str, Any] = Field(default_factory=dict)
    tags: dict[str, str] = Field(default_factory=dict)
    timeout: dict[str, int] = Field(default_factory=dict)
    work_seconds: int = 0
    step_seconds: int = 86400
    deadline: float = 0.0
    num_tasks: int = 0
    num_cells: int = 0
    prepare: Prepare | None = None
    owners: tuple[Owner, ...] = ()
    summary: dict[str, Any] | None = None
    message: str = ""
    error: Error | None = None
