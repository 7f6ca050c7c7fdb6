"""Every key of the store; no other module spells one."""

from __future__ import annotations

import re
from dataclasses import dataclass

_DONE = re.compile(r"runs/[^/]+/rounds/\d+/done/(\d+)\.parquet")
_TEMPLATE = re.compile(r"templates/([^/]+)\.yaml")
_IN_ROUND = re.compile(r"runs/([^/]+)/rounds/(\d+)/(drafts|log)/([^/]+)/")


@dataclass(frozen=True)
class RoundPart:
    """A folder of a round that holds a draft (``name`` is its token) or a log (``name`` is its task's number)."""

    run_id: str
    round_index: int
    kind: str
    name: str


class Layout:
    """Name the objects of a store (section 5 of the design)."""

    @staticmethod
    def manifest(dataset_id: str) -> str:
        """Return the key that is written last when a dataset is stored."""
        return f"datasets/{dataset_id}/manifest.json"

    @staticmethod
    def block(dataset_id: str, file: str) -> str:
        """Return the key of one array of a dataset, such as ``X.npy``."""
        return f"datasets/{dataset_id}/{file}"

    @staticmethod
    def splits(dataset_id: str, split_id: str) -> str:
        """Return the key of the row indices of one cross-validation of a dataset."""
        return f"datasets/{dataset_id}/splits/{split_id}.npz"

    @staticmethod
    def datasets() -> str:
        """Return the prefix under which every dataset lies."""
        return "datasets/"

    @classmethod
    def dataset(cls, dataset_id: str) -> str:
        """Return the prefix of one dataset, its splits among it."""
        return f"{cls.datasets()}{dataset_id}/"

    @staticmethod
    def round_part(key: str) -> RoundPart | None:
        """Return the draft or log in which an object lies, None for any other object."""
        match = _IN_ROUND.match(key)
        return None if match is None else RoundPart(match[1], int(match[2]), match[3], match[4])

    @staticmethod
    def source(digest: str) -> str:
        """Return the key of a memo: bytes that were seen before."""
        return f"sources/{digest}.json"

    @staticmethod
    def image(engine_id: str) -> str:
        """Return the key of the memo that says what an image holds."""
        return f"images/{engine_id}.json"

    @staticmethod
    def images() -> str:
        """Return the prefix under which every image's memo lies."""
        return "images/"

    @staticmethod
    def answer(token: str) -> str:
        """Return the key of what a step answered to whoever started it elsewhere under this token."""
        return f"answers/{token}.json"

    @staticmethod
    def given_spec(token: str) -> str:
        """Return the key of a spec that came within an execution's input; ``token`` is the hash of its ARN."""
        return f"answers/{token}-spec.json"

    @staticmethod
    def answers() -> str:
        """Return the prefix under which every answer lies."""
        return "answers/"

    @staticmethod
    def upload(token: str, name: str) -> str:
        """Return the key of a file that is handed to a step elsewhere, which answers under this token."""
        return f"uploads/{token}/{name}"

    @staticmethod
    def uploads() -> str:
        """Return the prefix under which every upload lies."""
        return "uploads/"

    @staticmethod
    def template(name: str) -> str:
        """Return the key of the spec that uploads of data below a folder of this name start; it may be overwritten."""
        return f"templates/{name}.yaml"

    @staticmethod
    def scheduled(digest: str) -> str:
        """Return the key of a spec that a schedule starts, however old it is; ``digest`` is that of its bytes."""
        return f"templates/scheduled/{digest}.yaml"

    @staticmethod
    def templates() -> str:
        """Return the prefix under which every template lies."""
        return "templates/"

    @staticmethod
    def template_name(key: str) -> str | None:
        """Return the name of the template under a key, None for any other object."""
        match = _TEMPLATE.fullmatch(key)
        return None if match is None else match[1]

    @staticmethod
    def outcome(day: str, name: str) -> str:
        """Return the key of what tells what became of an execution; ``day`` is as in 2031-05-17."""
        return f"outcomes/{day}/{name}.json"

    @staticmethod
    def book(book_id: str, number: int) -> str:
        """Return the key of entry ``number`` of a book."""
        return f"books/{book_id}/{number:06d}.json"

    @staticmethod
    def runs() -> str:
        """Return the prefix under which every run lies."""
        return "runs/"

    @staticmethod
    def spec(run_id: str) -> str:
        """Return the key of the spec as it was submitted."""
        return f"runs/{run_id}/spec.yaml"

    @staticmethod
    def space(run_id: str) -> str:
        """Return the key of the frozen candidates of a run."""
        return f"runs/{run_id}/space.json"

    @staticmethod
    def round(run_id: str, round_index: int) -> str:
        """Return the prefix of one round."""
        return f"runs/{run_id}/rounds/{round_index:03d}"

    @classmethod
    def plan(cls, run_id: str, round_index: int) -> str:
        """Return the key whose creation commits a round."""
        return f"{cls.round(run_id, round_index)}/plan.json"

    @classmethod
    def draft(cls, run_id: str, round_index: int, token: str, name: str) -> str:
        """Return the key of a part of a plan, written before the plan is committed."""
        return f"{cls.round(run_id, round_index)}/drafts/{token}/{name}"

    @classmethod
    def claim(cls, run_id: str, round_index: int, array_index: int, number: int) -> str:
        """Return the key that announces that an array is about to be submitted."""
        return f"{cls.round(run_id, round_index)}/arrays/{array_index}/claim-{number}.json"

    @classmethod
    def handle(cls, run_id: str, round_index: int, array_index: int, number: int) -> str:
        """Return the key that records what a backend answered to claim ``number``."""
        return f"{cls.round(run_id, round_index)}/arrays/{array_index}/handle-{number}.json"

    @classmethod
    def part(cls, run_id: str, round_index: int, task: int, sequence: int) -> str:
        """Return the key of part ``sequence`` of a task's append-only log."""
        return f"{cls.round(run_id, round_index)}/log/{task:06d}/{sequence:05d}.json"

    @classmethod
    def done(cls, run_id: str, round_index: int, task: int) -> str:
        """Return the key of the folded log of a finished task."""
        return f"{cls.round(run_id, round_index)}/done/{task:06d}.parquet"

    @classmethod
    def all(cls, run_id: str, round_index: int) -> str:
        """Return the key of the folded results of a complete round."""
        return f"{cls.round(run_id, round_index)}/all.parquet"

    @classmethod
    def stop(cls, run_id: str, round_index: int) -> str:
        """Return the key whose presence asks the tasks of a round to stop."""
        return f"{cls.round(run_id, round_index)}/stop.json"

    @classmethod
    def logs(cls, run_id: str, round_index: int) -> str:
        """Return the prefix of the logs of a round, one level for each task that has one."""
        return f"{cls.round(run_id, round_index)}/log/"

    @classmethod
    def all_done(cls, run_id: str, round_index: int) -> str:
        """Return the prefix of the folded logs of a round."""
        return f"{cls.round(run_id, round_index)}/done/"

    @staticmethod
    def done_task(key: str) -> int | None:
        """Return the number of the task whose folded log lies under a key, None for any other object."""
        match = _DONE.fullmatch(key)
        return None if match is None else int(match[1])

    @staticmethod
    def lock(run_id: str, name: str) -> str:
        """Return the key of a lock between processes, where the store is a folder; it is no object."""
        return f".locks/{run_id}.{name}.lock"

    @staticmethod
    def swaps() -> str:
        """Return the key of the lock under which views are replaced, where the store is a folder; it is no object."""
        return ".locks/views.lock"

    @staticmethod
    def tops() -> frozenset[str]:
        """Return what lies at the top of a store, hidden folders of a store in a folder among it."""
        kept = {"datasets", "sources", "images", "books", "runs", "answers", "uploads", "templates", "outcomes"}
        return frozenset(kept | {".tmp", ".locks"})

    @staticmethod
    def view(run_id: str, name: str) -> str:
        """Return the key of something a person reads; views may be overwritten."""
        return f"runs/{run_id}/views/{name}"
