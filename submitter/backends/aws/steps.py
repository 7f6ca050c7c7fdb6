"""Where prepare, reduce and refit run: at the desk, or as a request that the desk waits for."""

from __future__ import annotations

import contextlib
import logging
import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobspec.engine import Engine, current_engine
from jobspec.errors import FoldfleetError, NotFoundError, TryLaterError
from jobspec.grammar.spec import DataSpec
from jobspec.protocol import answer_arguments
from jobspec.runs.answers import read_answer
from jobspec.search.memo import source_path
from jobspec.stores.layout import Layout
from jobspec.stores.objects import is_object_url
from submitter.backends.aws.presence import describe, failure_of, refusal_in, stream_of, tail
from submitter.backends.aws.reasons import advise, decode
from submitter.backends.aws.request import Call, Site, request_name, step_call
from submitter.backends.aws.sending import find_beginning, send
from submitter.backends.aws.states import state_of
from submitter.backends.base import RequestState, UnstartedError
from submitter.cloud.clients import Clients
from submitter.cloud.errors import explained
from submitter.cloud.record import ImageRecord, Step

if TYPE_CHECKING:
    from jobspec.stores.base import Store

log = logging.getLogger(__name__)

FIRST_LOOK_SECONDS = 1.0
LONGEST_LOOK_SECONDS = 15.0
PATIENCE_SECONDS = 60.0
"""How long what was sent may not be to be seen."""

_DEFAULT_FOLDS = "1000"
_SHOWN_LINES = 3

Sent = tuple[str, str, str]
"""A request: its id, its name, and the token under which it answers."""


def has_local_data(data: DataSpec) -> bool:
    """Say whether a spec's data are a file of the desk's machine."""
    return data.path is not None and source_path(data, Path()) is not None


def is_same_here(record: ImageRecord) -> bool:
    """Say whether the desk draws the same splits and parameters as the image: the same libraries, and foldfleet."""
    here = current_engine("portable").packages
    return record.parts.packages == here and record.parts.foldfleet == version("foldfleet")


def prepares_here(data: DataSpec, record: ImageRecord) -> bool:
    """Say whether prepare runs at the desk; data in S3 are read where the tasks read them, with the tasks' rights.

    Raises:
        NotFoundError: it can run nowhere: the data are here, the libraries there.
    """
    if data.path is not None and is_object_url(data.path):
        return False
    if is_same_here(record):
        return True
    if not has_local_data(data):
        return False
    here, there = current_engine("portable").packages, record.parts.packages
    differing = sorted(name for name in there if here.get(name) != there[name])
    told = ", ".join(f"{name} {here.get(name, 'none')} here, {there[name]} in the image" for name in differing)
    install = " ".join(f"{name}=={there[name]}" for name in differing)
    told = told or f"foldfleet {version('foldfleet')} here, {record.parts.foldfleet} in the image"
    raise NotFoundError(
        f"The data are a file of this machine, whose libraries are not those of the image {record.tag}: {told}. "
        f"Install the same here ({f'`pip install {install}`' if install else 'this foldfleet'}), push an image of the "
        "versions here (`submit image build`, `submit image push`), or upload the data and write their s3:// URL into "
        "the spec: then they are prepared in the image."
    )


def desk_arguments(arguments: Sequence[str], engine: Engine) -> list[str]:
    """Return the arguments of prepare at the desk, for tasks that compute with the image's engine."""
    return [*arguments, "--engine", engine.model_dump_json()]


class _NoAnswerError(TryLaterError):
    """A step ended without an answer, and nothing says that it would again."""


class RemoteSteps:
    """Runs steps as requests, one at a time, and waits for their answers in the store."""

    def __init__(
        self,
        clients: Clients,
        store: Store,
        site: Site,
        label: str,
        sleep: Callable[[float], None],
        *,
        patience_s: float = math.inf,
    ) -> None:
        self._clients = clients
        self._store = store
        self._site = site
        self._label = label
        self._sleep = sleep
        self._patience_s = patience_s
        self._job_id: str | None = None

    def run(self, arguments: Sequence[str]) -> dict[str, Any]:
        """Run a step to its end and return its answer.

        Raises:
            FoldfleetError: what it refused with.
            TryLaterError: it did not end well for another reason, which is told.
            UnstartedError: it waits for a host for longer than this desk does.
        """
        found = self._waiting(arguments)
        if found is not None:
            with contextlib.suppress(_NoAnswerError):  # its own desk has ended it
                return self._answer(arguments, found)
        sent = self._send(arguments)
        self._job_id = sent[0]  # what another desk sent is not this one's to end
        return self._answer(arguments, sent)

    def _answer(self, arguments: Sequence[str], sent: Sent) -> dict[str, Any]:
        """Wait for a request and return its answer."""
        step, (job_id, name, token) = arguments[0], sent
        log.warning("Waiting for the %s step on AWS Batch (%s) ...", step, name)
        run = _options(arguments).get("--run", "RUN")
        detail = self._await_end(job_id, f"The {step} step on AWS Batch ({name})", run)
        self._job_id = None
        answer = read_answer(self._store, token)
        if answer is not None and answer.error is not None:
            raise FoldfleetError.from_json(answer.error)
        if answer is not None and answer.answer is not None:
            return answer.answer
        raise self._failed(step, name, detail, run)

    def stop(self) -> None:
        """End the step that is running; its answer is of no use to anybody else."""
        if self._job_id is not None:
            job_id, self._job_id = self._job_id, None
            with explained("Ending a step on AWS Batch"):
                self._clients.batch.terminate_job(jobId=job_id, reason="its desk was interrupted")

    def _send(self, arguments: Sequence[str]) -> Sent:
        token = f"{arguments[0]}-{uuid.uuid4().hex[:16]}"
        call = self._call(arguments, token)
        return send(self._clients, call, self._sleep), str(call["jobName"]), token

    def _waiting(self, arguments: Sequence[str]) -> Sent | None:
        """Return a reduce step that a desk left and no host has started: it will read all that is there."""
        if arguments[0] != "reduce" or "--refit" in arguments:
            return None
        beginning = request_name(self._label, "reduce-")
        found = describe(self._clients, find_beginning(self._clients, self._site.stack.queue_arn, beginning))
        for job_id, detail in found.items():
            told = detail.get("parameters") or {}
            is_same = told.get("store") == self._site.store_url and told.get("run") == _options(arguments)["--run"]
            if is_same and "answer" in told and state_of(detail) is RequestState.WAITING:
                return job_id, str(detail["jobName"]), str(told["answer"])
        return None

    def _call(self, arguments: Sequence[str], token: str) -> Call:
        step, options = arguments[0], _options(arguments)
        if step == "prepare":
            url = self._upload(Path(options["--spec"]), token)
            unusual = options.get("--max-folds") != _DEFAULT_FOLDS or "--allow-small-classes" in arguments
            command = [url if part == options["--spec"] else part for part in arguments] if unusual else None
            parameters = {"store": self._site.store_url, "spec": url}
            return self._step_call("prepare", token, parameters, command)
        parameters = {"store": self._site.store_url, "run": options["--run"]}
        return self._step_call("reduce", token, parameters, None if step == "reduce" else list(arguments))

    def _step_call(self, step: Step, token: str, parameters: Mapping[str, str], command: Sequence[str] | None) -> Call:
        told = None if command is None else [*command, *answer_arguments(token)]
        return step_call(self._site, step, self._label, token, parameters, told)

    def _upload(self, spec: Path, token: str) -> str:
        key = Layout.upload(token, "spec.yaml")  # as young as its reader: `submit gc` removes old ones
        self._store.create(key, spec.read_bytes())
        return f"{self._store.url}/{key}"

    def _await_end(self, job_id: str, what: str, run: str) -> Mapping[str, Any]:
        wait, unseen, unstarted, told = FIRST_LOOK_SECONDS, 0.0, 0.0, ""
        while True:
            self._sleep(wait)
            detail = describe(self._clients, [job_id]).get(job_id)
            unseen = unseen + wait if detail is None else 0.0
            if unseen > PATIENCE_SECONDS:
                raise TryLaterError(f"AWS Batch took the request {job_id} and does not know it. Type it again.")
            if detail is not None and state_of(detail).is_over:
                return detail
            reason = decode(str((detail or {}).get("statusReason") or ""))
            why = "" if reason is None or reason.kind == "other" else advise(reason, run)
            if why and why != told:
                told = why
                log.warning("It waits: %s", why)
            unstarted = unstarted + wait if detail is None or state_of(detail) is RequestState.WAITING else 0.0
            if unstarted >= self._patience_s:
                self._job_id = None  # what is sent stays: a host that comes later starts it
                raise UnstartedError(
                    f"{what} has waited for a host for {unstarted / 60:.0f} minutes, and goes on to do so without this "
                    f"terminal{f': {why}' if why else '.'}"
                )
            wait = min(wait * 1.5, LONGEST_LOOK_SECONDS)

    def _failed(self, step: str, name: str, detail: Mapping[str, Any], run: str) -> FoldfleetError:
        stream = stream_of(detail)
        lines = [] if stream is None else tail(self._clients, self._site.stack.log_group_name, stream, 40)
        if (refusal := refusal_in(lines)) is not None:
            return refusal
        why = failure_of(detail, run).rstrip(".")
        if state_of(detail) is RequestState.SUCCEEDED:
            why = "it ended well and left no answer in the store"
        words = " / ".join(lines[-_SHOWN_LINES:])
        return _NoAnswerError(
            f"The {step} step on AWS Batch ({name}) gave no answer: {why}."
            + (f" Its log ends with: {words}." if words else "")
            + " What is finished is kept: type the same command again."
        )


def _options(arguments: Sequence[str]) -> dict[str, str]:
    """Return the values of a step's options, by name."""
    return {name: value for name, value in pairwise(arguments) if name.startswith("--") and not value.startswith("--")}
