from __future__ import annotations

import pytest

from jobspec.errors import NotFoundError
from jobspec.stores.base import Store, open_store
from jobspec.stores.layout import Layout
from submitter.cli.leaderboard import Entry, read_leaderboard
from submitter.cli.show import format_bytes, format_fit, format_params, leaderboard_table, show_all

CSV = """\
"estimator","params","mean_fit_time","mean_test_acc","std_test_acc","rank_test_acc","mean_test_f1","std_test_f1",\
"rank_test_f1","error"
"SVC","{""C"": 1}",0.5,0.9,0.01,2,0.8,0.02,1,
"SVC","{""C"": 10}",0.25,0.95,0.02,1,0.7,0.03,2,
"SVC","{""C"": -1}",0.1,nan,nan,4,nan,nan,3,"ValueError: C, ""must"" be positive"
"SVC","{""C"": 3}",0.5,0.9,0.01,2,0.7,0.02,2,
"""


@pytest.fixture
def store(store_url: str) -> Store:
    store = open_store(store_url)
    store.put(Layout.view("run", "cv_results.csv"), CSV.encode())
    return store


def test_candidates_come_by_rank_and_then_in_their_own_order(store: Store) -> None:
    assert [entry.candidate for entry in read_leaderboard(store, "run", "acc", 10)] == [1, 0, 3, 2]
    assert [entry.candidate for entry in read_leaderboard(store, "run", "f1", 2)] == [0, 1]
    assert [entry.candidate for entry in read_leaderboard(store, "run", None, 1)] == [1]


def test_a_row_holds_what_is_shown(store: Store) -> None:
    assert read_leaderboard(store, "run", "acc", 1) == [
        Entry(1, 1, "SVC", {"C": 10}, {"acc": 0.95, "f1": 0.7}, {"acc": 0.02, "f1": 0.03}, 0.25, None)
    ]


def test_named_entries_can_be_told_apart(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    lines = CSV.splitlines()
    names = ["name", "wide", "", "narrow", ""]
    named = "\n".join(f'"{name}",{line}' if name else f",{line}" for name, line in zip(names, lines, strict=True))
    store.put(Layout.view("named", "cv_results.csv"), named.encode())
    entries = read_leaderboard(store, "named", "acc", 4)
    assert [entry.title for entry in entries] == ["SVC", "wide: SVC", "SVC", "narrow: SVC"]
    assert [entry.to_json()["name"] for entry in entries] == [None, "wide", None, "narrow"]
    show_all(leaderboard_table(entries, "acc"))
    assert "wide: SVC" in capsys.readouterr().out


def test_a_failed_candidate_keeps_its_message_and_has_no_score(store: Store) -> None:
    failed = read_leaderboard(store, "run", "acc", 4)[-1]
    assert failed.means == {"acc": None, "f1": None}
    assert failed.error == 'ValueError: C, "must" be positive'


def test_a_run_without_a_table_says_what_to_type(store: Store) -> None:
    with pytest.raises(NotFoundError, match="submit resume other"):
        read_leaderboard(store, "other", None, 1)


def test_the_ranking_score_stands_first(store: Store) -> None:
    table = leaderboard_table(read_leaderboard(store, "run", "f1", 4), "f1")
    assert [column.header for column in table.columns] == ["rank", "f1", "acc", "fit", "estimator", "parameters"]


def test_names_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    params = {"layers": [100, 50], "tag": "[/bold]", "face": ":smile:", "html": "<script>", "cell": "=cmd()"}
    show_all(leaderboard_table([Entry(1, 0, "[red]Model[/red]", params, {"s": 0.5}, {"s": 0.0}, 1.0, None)], "s"))
    row = capsys.readouterr().out.splitlines()[1]
    assert "[red]Model[/red]" in row
    assert "layers=[100, 50], tag=[/bold], face=:smile:, html=<script>, cell==cmd()" in row


def test_an_empty_table_can_be_shown() -> None:
    assert leaderboard_table([], None).row_count == 0


def test_numbers_are_short() -> None:
    assert format_params({"C": 0.1 + 0.2, "gamma": "scale", "n": None}) == "C=0.3, gamma=scale, n=None"
    assert [format_fit(0.0123), format_fit(75.0)] == ["12 ms", "1 min 15 s"]
    assert [format_bytes(n) for n in (12, 2048, 3 << 30)] == ["12 B", "2.0 KiB", "3.0 GiB"]
