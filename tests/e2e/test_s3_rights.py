"""What each step asks of a store in S3: no key but those that its role may have, and no listing that can be spared."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from jobspec.grammar.load import load
from jobspec.protocol import containers_command, prepare_arguments, reduce_arguments, work_arguments
from jobspec.runs.answers import read_answer
from jobspec.runs.rounds import commit_round, draft_round
from jobspec.search.inspection import Inspection
from jobspec.search.planning import plan_tasks
from jobspec.stores.base import open_store
from jobspec.stores.layout import Layout
from jobspec.stores.objects import open_bucket
from submitter.search import keep, make_search
from tests.servers.faulty import FaultyProxy
from tests.servers.s3server import BUCKET, S3Server

SPEC = """
name: rights
data: {{path: {url}, target: kind}}
cv: 3
candidates: [{{estimator: sklearn.svm.SVC, grid: {{C: [1, 2]}}}}]
"""

READS = ("get", "get_range", "head")
WRITES = ("put",)

ROUND = r"runs/[^/]+/rounds/\d{3}"
OF_THE_RUN = rf"runs/[^/]+/(spec\.yaml|space\.json)|{ROUND}/.*|\.absent"
ALLOWED: Mapping[str, Mapping[tuple[str, ...], str]] = {
    "prepare": {
        READS: r"uploads/.*|sources/.*|datasets/.*|answers/.*|\.absent",
        WRITES: r"datasets/.*|sources/.*|answers/.*",
        ("list",): "",
    },
    "work": {
        READS: rf"datasets/.*|{OF_THE_RUN}",
        WRITES: rf"{ROUND}/(log/\d+/\d+\.json|done/\d+\.parquet)",
    },
    "reduce": {
        READS: rf"datasets/.*|runs/[^/]+/views/.*|answers/.*|{OF_THE_RUN}",
        WRITES: rf"{ROUND}/all\.parquet|runs/[^/]+/views/.*|answers/.*",
    },
}
"""By step and kind of request: the keys, as a pattern. A listing names the bucket alone."""


class Place:
    """A store behind a proxy that notes every request, and steps as processes that use it."""

    def __init__(self, proxy: FaultyProxy, environment: dict[str, str], url: str) -> None:
        self.proxy = proxy
        self.environment = environment
        self.url = url
        self.top = url.removeprefix("s3://") + "/"

    def run(self, arguments: list[str]) -> set[tuple[str, str]]:
        """Run a step to its end; return what it asked for, as (kind, key in the store or the bucket)."""
        self.proxy.seen.clear()
        done = subprocess.run(
            containers_command(arguments),
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | self.environment,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return {(seen.operation, seen.key.removeprefix(self.top)) for seen in self.proxy.seen}


@pytest.fixture
def place(seaweed: S3Server, user: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    for name, value in seaweed.environment.items():
        monkeypatch.setenv(name, value)
    with FaultyProxy(seaweed.endpoint) as proxy:
        yield Place(proxy, seaweed.behind(proxy.endpoint).environment, seaweed.fresh_url())


def refused(step: str, asked: set[tuple[str, str]], besides: str) -> list[tuple[str, str]]:
    """Return the requests that a step's role does not allow; ``besides`` are keys outside of the store it may read."""

    def is_allowed(operation: str, key: str) -> bool:
        if operation in READS and re.fullmatch(besides, key):
            return True
        return any(
            operation in kinds and (operation == "list" or re.fullmatch(pattern, key) is not None)
            for kinds, pattern in ALLOWED[step].items()
        )

    return sorted((operation, key) for operation, key in asked if not is_allowed(operation, key))


def test_no_step_asks_for_more_than_its_role_may(place: Place, tmp_path: Path) -> None:
    folder = place.url.rpartition("/")[0] + "/data"
    rows = "".join(f"{i * 37 % 101 / 10},{'abc'[i * 5 % 3]}\n" for i in range(60))
    open_bucket(folder + "/table.csv").create(
        f"{folder.removeprefix(f's3://{BUCKET}/')}/table.csv", b"x,kind\n" + rows.encode()
    )
    data = re.escape(f"{folder.removeprefix('s3://')}") + r"/(table\.csv|\.absent)"
    store = open_store(place.url)
    spec = tmp_path / "spec.yaml"
    spec.write_text(SPEC.format(url=f"{folder}/table.csv"))
    key = Layout.upload("0" * 64, "spec.yaml")
    store.create(key, spec.read_bytes())

    options: Any = {"max_folds": 10, "allow_small_classes": False, "numerics": "native"}
    asked = place.run(prepare_arguments(place.url, f"{place.url}/{key}", answer="t-1", **options))
    folder_of_spec = re.escape(key.rpartition("/")[0]) + r"/\.absent"
    assert refused("prepare", asked, f"{data}|{folder_of_spec}") == []
    told = read_answer(store, "t-1")
    assert told is not None and told.answer is not None

    search = keep(store, make_search(load(spec), Inspection.model_validate(told.answer)))
    fields = {"round": 0, "num_known": 0, "workers": 1, "space_digest": search.space.frozen.digest()}
    tasks = plan_tasks(search.num_candidates, search.num_splits, 1)
    plan = commit_round(store, draft_round(search.fields | fields, tasks, None))
    for task in range(plan.num_tasks):
        assert refused("work", place.run(work_arguments(place.url, plan.run_id, 0, task)), "") == []

    for token in ("t-2", "t-3"):
        asked = place.run(reduce_arguments(place.url, plan.run_id, refit=True, answer=token))
        assert refused("reduce", asked, "") == []
    answer = read_answer(store, "t-3")
    assert answer is not None and answer.answer is not None
    assert answer.answer["complete"] and answer.answer["refit"]["model"].endswith("/model.joblib")
    assert json.loads(store.get(Layout.view(plan.run_id, "model/card.json")))["run_id"] == plan.run_id
