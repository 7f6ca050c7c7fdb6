from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from jobspec.errors import DataError, InterruptedRun, TryLaterError, UsageError
from jobspec.grammar.load import parse
from jobspec.runs.rounds import RoundPlan, draft_round
from jobspec.search.planning import Task
from jobspec.settings import Settings
from jobspec.stores.folder import FolderStore
from submitter.backends.base import ArrayRequest, BackendContext, Request, check_backend, make_backend
from submitter.backends.hostprocess import HostDiedError, HostProcess, Reply
from submitter.backends.local import LocalBackend, StepCrashedError
from tests.unit.plans import plan_fields

ECHO = """
import json, sys
for line in sys.stdin:
    step = json.loads(line)["argv"]
    if step[0] == "die":
        sys.exit(3)
    print(json.dumps({"exit": int(step[1]), "stdout": step[2]}), flush=True)
"""


SPEC = """
name: letters
data: {builtin: iris}
candidates: [{estimator: sklearn.svm.SVC}]
numerics: portable
"""


def echo_host(_command: Sequence[str], environment: Mapping[str, str], log: Path) -> HostProcess:
    return HostProcess([sys.executable, "-c", ECHO], environment, log)


def no_host(*_: Any) -> HostProcess:
    raise AssertionError("nothing may be started")


@pytest.fixture
def context(tmp_path: Path) -> BackendContext:
    settings = Settings("store", tmp_path / "cache", None, ("mine", "ours"), ("/a", "/b"))
    spec = parse(SPEC.encode(), "spec.yaml").spec
    return BackendContext(settings, FolderStore(Path("/data/store")), spec, 3, "letters")


@pytest.fixture
def plan() -> RoundPlan:
    return draft_round(plan_fields("portable"), [Task(0, ((0, 2),)), Task(1, ((0, 2),))], None).plan


def test_the_request_of_a_round(context: BackendContext, plan: RoundPlan) -> None:
    backend = LocalBackend(context, no_host)
    work = ["work", "--store", "/data/store", "--run", "letters-0123456789ab", "--round", "2", "--first-task", "0"]
    assert backend.build_request(plan) == Request(
        backend="local",
        run_id="letters-0123456789ab",
        round=2,
        arrays=(
            ArrayRequest(
                name="letters-0123456789ab-r2-a0",
                array_index=0,
                first_task=0,
                size=2,
                command=(sys.executable, "-P", "-m", "containers", *work),
                environment={
                    "OMP_NUM_THREADS": "1",
                    "OPENBLAS_NUM_THREADS": "1",
                    "MKL_NUM_THREADS": "1",
                    "BLIS_NUM_THREADS": "1",
                    "VECLIB_MAXIMUM_THREADS": "1",
                    "NUMEXPR_NUM_THREADS": "1",
                    "OPENBLAS_CORETYPE": "Haswell",
                    "NPY_DISABLE_CPU_FEATURES": (
                        "X86_V4 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR"
                    ),
                    "MKL_CBWR": "COMPATIBLE",
                    "FOLDFLEET_CACHE": str(context.settings.cache),
                    "FOLDFLEET_ALLOWED_MODULES": "mine,ours",
                    "FOLDFLEET_MODULE_PATH": "/a:/b",
                    "FOLDFLEET_WORKERS": "3",
                    "FOLDFLEET_FLUSH_SECONDS": "1",
                    "FOLDFLEET_LOG_STREAM": str(backend.log),
                    "FOLDFLEET_NUM_TASKS": "2",
                },
            ),
        ),
    )


def test_a_step_answers_with_its_json(context: BackendContext) -> None:
    backend = LocalBackend(context, echo_host)
    assert backend.step(["reduce", "0", '{"complete": true}']) == {"complete": True}
    backend.close()
    assert not backend.log.exists()  # it held no word


def test_a_refusal_comes_back_as_the_error_it_was(context: BackendContext) -> None:
    backend = LocalBackend(context, echo_host)
    refusal = json.dumps({"error": {"exit": 3, "message": "no such column"}})
    with pytest.raises(DataError, match="no such column"):
        backend.step(["prepare", "3", refusal])
    backend.close()


def test_arrays_run_one_after_the_other_and_end_together(context: BackendContext) -> None:
    backend = LocalBackend(context, echo_host)
    for name, exit_code in (("one", "0"), ("two", "130")):
        backend.submit(ArrayRequest(name, 0, 0, 1, ("python", "-m", "containers", "work", exit_code, ""), {}))
    endings = None
    while endings is None:
        endings = backend.wait(10.0)
    assert [(ending.name, type(ending.error)) for ending in endings] == [("one", type(None)), ("two", InterruptedRun)]
    backend.close()


@pytest.mark.parametrize(
    ("exit_code", "error", "words"), [("-9", TryLaterError, "SIGKILL"), ("1", StepCrashedError, "log")]
)
def test_a_step_that_crashed_names_its_log(
    context: BackendContext, exit_code: str, error: type[Exception], words: str
) -> None:
    backend = LocalBackend(context, echo_host)
    with pytest.raises(error, match=words) as caught:
        backend.step(["reduce", exit_code, ""])
    assert str(backend.log) in str(caught.value)
    backend.close()


def test_a_dead_helper_is_told_and_replaced(context: BackendContext) -> None:
    backend = LocalBackend(context, echo_host)
    with pytest.raises(TryLaterError, match="submit resume"):
        backend.step(["die"])
    assert backend.step(["reduce", "0", "{}"]) == {}
    backend.close()


def test_stopping_ends_the_helper(context: BackendContext) -> None:
    backend = LocalBackend(context, echo_host)
    backend.warm()
    backend.stop()
    backend.stop()
    backend.close()


def test_nothing_is_started_before_it_is_needed(context: BackendContext, plan: RoundPlan) -> None:
    backend = LocalBackend(context, no_host)
    backend.build_request(plan)
    backend.stop()
    backend.close()
    assert not context.settings.cache.exists()


def test_a_reply_may_come_in_pieces(tmp_path: Path) -> None:
    pieces = """
import sys
for piece in ('{"exit": 0, "std', 'out": "a"}\\n{"exit": 1, "stdout": "b"}\\n'):
    sys.stdout.write(piece); sys.stdout.flush()
"""
    host = HostProcess([sys.executable, "-c", pieces], {}, tmp_path / "log")
    assert [host.receive(None), host.receive(None)] == [Reply(0, "a"), Reply(1, "b")]
    with pytest.raises(HostDiedError):
        host.receive(None)
    host.end()


def test_all_backends_are_named_where_there_is_no_such() -> None:
    with pytest.raises(UsageError, match="--on local or --on docker or --on aws or --on stepfunctions"):
        check_backend("slurm")


def test_a_mistyped_backend_is_corrected() -> None:
    with pytest.raises(UsageError, match="Did you mean 'local'"):
        check_backend("locl")


def test_the_table_of_backends_leads_to_classes(context: BackendContext) -> None:
    assert isinstance(make_backend("local", context), LocalBackend)
