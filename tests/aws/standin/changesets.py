"""CloudFormation's change sets and deletions: asynchronous, checked, with AWS's words, and rolled back on failure."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from moto.cloudformation.exceptions import CloudFormationError, ValidationError
from moto.cloudformation.models import CloudFormationBackend, Stack
from moto.cloudformation.responses import CloudFormationResponse
from moto.cloudformation.utils import generate_changeset_id, generate_stack_id
from moto.core.responses import ActionResult, EmptyResult
from moto.core.utils import utcnow

from tests.aws.standin.deploying import create, delete, set_status, update
from tests.aws.standin.identity import ACCOUNT, REGION
from tests.aws.standin.patching import replace
from tests.aws.standin.templates import (
    Change,
    Template,
    check_parameters,
    find_changes,
    needed_capabilities,
    read_template,
)

NO_CHANGES = "The submitted information didn't contain changes. Submit different information to create a change set."
_CURRENT = "REVIEW_IN_PROGRESS"


class InvalidChangeSetStatus(CloudFormationError):
    code = "InvalidChangeSetStatus"


class ChangeSetNotFound(CloudFormationError):
    code = "ChangeSetNotFound"


class InsufficientCapabilities(CloudFormationError):
    code = "InsufficientCapabilitiesException"


class AlreadyExists(CloudFormationError):
    code = "AlreadyExistsException"


@dataclass
class ChangeSet:
    """A change set; ``pending`` until DescribeChangeSet has told once that it is in creation."""

    name: str
    arn: str
    kind: str
    stack: Stack
    template: Template
    parameters: dict[str, str]
    tags: dict[str, str]
    capabilities: list[str]
    changes: list[Change]
    pending: bool = True
    execution_status: str = "AVAILABLE"
    made: Any = field(default_factory=utcnow)

    @property
    def is_empty(self) -> bool:
        return self.kind == "UPDATE" and not self.changes

    def describe(self) -> dict[str, Any]:
        """Return what DescribeChangeSet answers now."""
        status = "CREATE_IN_PROGRESS" if self.pending else "FAILED" if self.is_empty else "CREATE_COMPLETE"
        given = [{"ParameterKey": key, "ParameterValue": value} for key, value in self.parameters.items()]
        return {
            "ChangeSetName": self.name,
            "ChangeSetId": self.arn,
            "StackId": self.stack.stack_id,
            "StackName": self.stack.name,
            "CreationTime": self.made,
            "Parameters": given,
            "Capabilities": self.capabilities,
            "Status": status,
            "ExecutionStatus": "UNAVAILABLE" if status != "CREATE_COMPLETE" else self.execution_status,
            **({"StatusReason": NO_CHANGES} if status == "FAILED" else {}),
            "Tags": [{"Key": key, "Value": value} for key, value in self.tags.items()],
            "Changes": [] if self.pending else [change.describe() for change in self.changes],
        }


class Deployments:
    """The change sets of the account, and what runs in the background."""

    def __init__(self) -> None:
        self._sets: dict[str, ChangeSet] = {}
        self._lock = threading.Lock()

    def install(self) -> None:
        """Put these answers in the place of moto's."""
        handlers: dict[str, Callable[[Any], Any]] = {
            "create_change_set": self.create,
            "describe_change_set": self.describe_set,
            "list_change_sets": self.list_sets,
            "delete_change_set": self.delete_set,
            "execute_change_set": self.execute,
            "delete_stack": self.delete_stack,
        }
        replace(CloudFormationResponse, **{name: _as_method(handler) for name, handler in handlers.items()})
        for name in ("Changes", "Parameters"):  # they come in their final form
            CloudFormationResponse.RESPONSE_KEY_PATH_TO_TRANSFORMER.pop(f"DescribeChangeSetOutput.{name}", None)
        # Looking at a stack must not make its resources, as moto's lazy map would.
        replace(Stack, parameter_list=property(_list_parameters), stack_resources=property(_list_resources))

    # --- change sets -------------------------------------------------------------------------------------------

    def create(self, response: Any) -> ActionResult:
        """Make a change set, and for a new stack the stack that waits for it."""
        backend = response.cloudformation_backend
        name, label = response._get_param("StackName"), response._get_param("ChangeSetName")
        kind = response._get_param("ChangeSetType") or "UPDATE"
        stack = _find_stack(backend, name)
        _check_kind(kind, name, label, stack)
        template = _read_given(response, stack)
        known = stack.parameters if stack is not None else {}
        parameters = check_parameters(template, response._get_param("Parameters") or [], known)
        capabilities = list(response._get_param("Capabilities") or [])
        lacking = needed_capabilities(template, capabilities)
        if lacking:
            raise InsufficientCapabilities(f"Requires capabilities : [{lacking}]")
        tags = {tag["Key"]: tag["Value"] for tag in response._get_param("Tags") or []}
        with self._lock:
            if stack is None:
                stack = _make_stack(backend, name, tags)
            if any(one.name == label and one.stack is stack for one in self._sets.values()):
                raise AlreadyExists(f"ChangeSet {label} cannot be created due to a mismatch with existing attribute")
            arn = generate_changeset_id(label, REGION, ACCOUNT)
            changes = find_changes(stack, template, parameters, tags)
            made = ChangeSet(label, arn, kind, stack, template, parameters, tags, capabilities, changes)
            self._sets[arn] = made
        return ActionResult({"Id": arn, "StackId": stack.stack_id})

    def find(self, response: Any) -> ChangeSet:
        """Return the change set that a request names."""
        label, name = response._get_param("ChangeSetName"), response._get_param("StackName")
        for made in list(self._sets.values()):
            if made.arn == label or (made.name == label and name in {made.stack.name, made.stack.stack_id}):
                return made
        raise ChangeSetNotFound(f"ChangeSet [{label}] does not exist")

    def describe_set(self, response: Any) -> ActionResult:
        """Tell of a change set; whoever asks first finds it in creation, whoever asks again finds its result."""
        made = self.find(response)
        told = made.describe()
        made.pending = False
        return ActionResult(told)

    def list_sets(self, response: Any) -> ActionResult:
        name = response._get_param("StackName")
        mine = [made for made in list(self._sets.values()) if name in {made.stack.name, made.stack.stack_id}]
        return ActionResult({"Summaries": [made.describe() for made in mine]})

    def delete_set(self, response: Any) -> EmptyResult:
        made = self.find(response)
        with self._lock:
            self._sets.pop(made.arn, None)
        return EmptyResult()

    def execute(self, response: Any) -> EmptyResult:
        """Begin to carry a change set out."""
        made = self.find(response)
        told = made.describe()
        if told["ExecutionStatus"] != "AVAILABLE":
            raise InvalidChangeSetStatus(
                f"ChangeSet [{made.arn}] cannot be executed in its current status of [{told['Status']}]"
            )
        made.execution_status = "EXECUTE_IN_PROGRESS"
        verb = "CREATE" if made.stack.status == _CURRENT else "UPDATE"
        set_status(made.stack, f"{verb}_IN_PROGRESS", "User Initiated")
        threading.Thread(target=self._carry_out, args=(made, verb), daemon=True).start()
        return EmptyResult()

    def _carry_out(self, made: ChangeSet, verb: str) -> None:
        with self._lock:  # once it has changed, others may be made for what it is then
            stale = [arn for arn, one in self._sets.items() if one.stack is made.stack]
        (create if verb == "CREATE" else update)(made.stack, made.template, made.parameters, made.tags, made.changes)
        with self._lock:  # the others were made for a stack that is no more
            for arn in stale:
                self._sets.pop(arn, None)

    # --- deletion ----------------------------------------------------------------------------------------------

    def delete_stack(self, response: Any) -> EmptyResult:
        """Begin to delete a stack; one that is not there is no error."""
        backend, name = response.cloudformation_backend, response._get_param("StackName")
        stack = _find_stack(backend, name)
        if stack is None:
            return EmptyResult()
        if stack.enable_termination_protection:
            raise ValidationError(message=f"Stack [{name}] cannot be deleted while TerminationProtection is enabled")
        retained = set(response._get_param("RetainResources") or [])
        if retained and stack.status != "DELETE_FAILED":
            raise ValidationError(
                message=f"Invalid operation on stack [{stack.stack_id}]. Specify which resources "
                "to retain only when the stack is in the DELETE_FAILED state."
            )
        if stack.status == _CURRENT:
            self._forget(backend, stack)
            return EmptyResult()
        set_status(stack, "DELETE_IN_PROGRESS", "User Initiated")
        threading.Thread(target=self._delete, args=(backend, stack, retained), daemon=True).start()
        return EmptyResult()

    def _delete(self, backend: CloudFormationBackend, stack: Stack, retained: set[str]) -> None:
        if delete(stack, retained):
            self._forget(backend, stack)

    def _forget(self, backend: CloudFormationBackend, stack: Stack) -> None:
        with self._lock:
            for arn in [arn for arn, one in self._sets.items() if one.stack is stack]:
                del self._sets[arn]
            # New dictionaries: requests read the old ones meanwhile, and find the stack in one of them at any moment.
            backend.deleted_stacks = {**backend.deleted_stacks, stack.stack_id: stack}
            left = OrderedDict((identity, one) for identity, one in backend.stacks.items() if one is not stack)
            backend.stacks = left
        set_status(stack, "DELETE_COMPLETE")


def _as_method(handler: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a function that a class can hold: a bound method would not be given the response."""

    def method(response: Any) -> Any:
        return handler(response)

    return method


def _list_resources(stack: Stack) -> list[Any]:
    known = stack.resource_map._parsed_resources
    return [known[name] for name in stack.resource_map if known.get(name) is not None]


def _list_parameters(stack: Stack) -> list[dict[str, str]]:
    """Return a stack's parameters as they were given: a list is text with commas."""
    hidden = {name for name, slot in (stack.template_dict.get("Parameters") or {}).items() if slot.get("NoEcho")}
    return [
        {"ParameterKey": name, "ParameterValue": "****" if name in hidden else str(value)}
        for name, value in (stack.parameters or {}).items()
    ]


def _check_kind(kind: str, name: str, label: str, stack: Stack | None) -> None:
    fresh = stack is None or stack.status == _CURRENT
    if kind == "CREATE" and not fresh:
        told = f"Stack [{name}] already exists and cannot be created again with the changeSet [{label}]."
        raise ValidationError(message=told)
    if kind == "UPDATE" and fresh:
        raise ValidationError(message=f"Stack [{name}] does not exist")
    if kind == "UPDATE" and stack is not None:
        busy = stack.status.endswith("_IN_PROGRESS") or stack.status in {"ROLLBACK_COMPLETE", "DELETE_FAILED"}
        if busy or stack.status in {"CREATE_FAILED", "ROLLBACK_FAILED"}:
            told = f"Stack:{stack.stack_id} is in {stack.status} state and can not be updated."
            raise ValidationError(message=told)


def _read_given(response: Any, stack: Stack | None) -> Template:
    if str(response._get_param("UsePreviousTemplate")).lower() == "true" and stack is not None:
        return read_template(str(stack.template))
    if response._get_param("TemplateURL"):
        raise NotImplementedError("TemplateURL")
    body = response._get_param("TemplateBody")
    if not body:
        raise ValidationError(message="Either Template URL or Template Body must be specified.")
    return read_template(body)


def _find_stack(backend: CloudFormationBackend, name: str) -> Stack | None:
    return next((stack for stack in backend.stacks.values() if name in {stack.name, stack.stack_id}), None)


def _make_stack(backend: CloudFormationBackend, name: str, tags: Mapping[str, str]) -> Stack:
    make: Any = Stack
    stack: Stack = make(
        stack_id=generate_stack_id(name, REGION, ACCOUNT),
        name=name,
        template={},
        parameters={},
        account_id=ACCOUNT,
        region_name=REGION,
        tags=dict(tags),
    )
    backend.stacks = OrderedDict([*backend.stacks.items(), (stack.stack_id, stack)])  # others go through the old one
    set_status(stack, _CURRENT, "User Initiated")
    return stack
