from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import ParameterGrid

from jobspec.grammar.values import EstimatorNode, NamedList, NumpyScalar, PipelineNode
from jobspec.search.candidates import CandidateSpace, Definition, FrozenEntry, FrozenSpace, describe

SVC = "sklearn.svm.SVC"
SCALER = "sklearn.preprocessing.StandardScaler"
PIPELINE = PipelineNode((("scale", EstimatorNode(SCALER)), ("svc", EstimatorNode(SVC))))

SPACES = st.lists(
    st.dictionaries(
        st.text("abcXYZ_", min_size=1, max_size=4), st.lists(st.integers(), min_size=1, max_size=4), max_size=4
    ),
    min_size=1,
    max_size=3,
)


def make(*entries: tuple[Definition, list[dict[str, Any]]]) -> CandidateSpace:
    return CandidateSpace(
        FrozenSpace(
            tuple(
                FrozenEntry(None, definition, tuple(tuple((k, tuple(v)) for k, v in space.items()) for space in spaces))
                for definition, spaces in entries
            )
        )
    )


@given(SPACES)
@settings(max_examples=50)
def test_order_is_that_of_parameter_grid(spaces: list[dict[str, list[int]]]) -> None:
    space = make((EstimatorNode(SVC), spaces))
    expected = list(ParameterGrid(spaces))
    assert len(space) == len(expected)
    assert [candidate.assignments for candidate in space] == expected
    assert [list(candidate.assignments) for candidate in space] == [list(params) for params in expected]


@given(SPACES)
@settings(max_examples=30)
def test_duplicates_are_never_missed(spaces: list[dict[str, list[int]]]) -> None:
    space = make((EstimatorNode(SVC), spaces))
    keys = [space.key(index) for index in range(len(space))]
    expected: dict[int, list[int]] = {}
    for index, key in enumerate(keys):
        if keys.index(key) != index:
            expected.setdefault(keys.index(key), []).append(index)
    assert space.duplicates() == expected


def test_a_grid_of_a_billion_costs_nothing() -> None:
    values = list(range(1000))
    space = make((EstimatorNode(SVC), [{"a": values, "b": values, "c": values}]))
    assert len(space) == 10**9
    assert space.candidate(123_456_789).assignments == {"a": 123, "b": 456, "c": 789}
    assert not space.has_duplicates_possible()


def test_more_candidates_than_len_can_tell() -> None:
    values = list(range(1000))
    space = make((EstimatorNode(SVC), [dict.fromkeys("abcdefgh", values)]))
    assert space.num_candidates == 10**24
    assert space.candidate(10**24 - 1).assignments == dict.fromkeys("abcdefgh", 999)


@pytest.mark.parametrize("index", [-1, 2])
def test_indices_outside_are_refused(index: int) -> None:
    with pytest.raises(IndexError):
        make((EstimatorNode(SVC), [{"C": [1, 2]}])).candidate(index)


def test_entries_and_spaces_follow_one_another() -> None:
    space = make((EstimatorNode(SVC), [{"C": [1, 2]}, {}]), (PIPELINE, [{"svc__C": [3]}]))
    assert [candidate.entry_index for candidate in space] == [0, 0, 0, 1]
    assert space.entry_range(0) == range(3)
    assert space.entry_range(1) == range(3, 4)
    assert space.axes(0) == ({"C": (1, 2)}, {})


def test_params_and_grid_give_one_key() -> None:
    by_grid = make((EstimatorNode(SVC), [{"C": [1, 2]}]))
    by_params = make((EstimatorNode(SVC, {"C": 1}), [{}]))
    assert by_grid.key(0) == by_params.key(0)
    assert by_grid.key(1) != by_params.key(0)


@pytest.mark.parametrize("other", [1.0, True, NumpyScalar("float64", 1.0), "1"])
def test_types_keep_keys_apart(other: Any) -> None:
    space = make((EstimatorNode(SVC), [{"C": [1, other]}]))
    assert space.key(0) != space.key(1)


MIXED = st.sampled_from(
    [
        *(0.0, -0.0, 0, False, 1, 1.0, True, "1", float("nan"), None, (1,), "<<slot 0 of this candidate>>"),
        *(NumpyScalar("float64", number) for number in (1.0, -0.0, 0.0, float("nan"))),
        *(NumpyScalar("int64", 1), EstimatorNode(SVC, {"C": 2})),
    ]
)
NAMES = ["svc__C", "svc", "scale", "svc__estimators", "svc__a__b", "steps", "scale__with_mean", "other", "memory"]


@given(st.dictionaries(st.sampled_from(NAMES), st.lists(MIXED, min_size=1, max_size=3), max_size=4))
@settings(max_examples=100)
def test_kept_keys_are_those_of_the_folded_candidates(space: dict[str, list[Any]]) -> None:
    voting = EstimatorNode(
        "sklearn.ensemble.VotingClassifier", {"estimators": NamedList((("svc", EstimatorNode(SVC)),))}
    )
    candidates = make((PIPELINE, [space]), (EstimatorNode(SVC), [space]), (voting, [space]))
    assert [candidates.key(i) for i in range(len(candidates))] == [candidate.key() for candidate in candidates]


def test_draws_of_any_parameters_have_keys() -> None:
    draws: tuple[dict[str, Any], ...] = (
        {"svc__C": 1, "svc__gamma": 2},
        {"svc__C": 1},
        {"svc__gamma": 2, "svc__C": 1},
        {},
    )
    space = CandidateSpace(FrozenSpace((FrozenEntry(None, PIPELINE, draws=draws),)))
    assert [space.key(i) for i in range(4)] == [candidate.key() for candidate in space]
    assert space.duplicates() == {0: [2]}


def test_duplicates_are_found_beyond_the_first_hundred_thousand_and_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    values = list(range(60_000))
    space = make((EstimatorNode(SVC), [{"C": values}, {"C": [*values, -1]}]))
    assert len(space.duplicates()) == 60_000
    monkeypatch.setattr(CandidateSpace, "key", None)
    assert space.duplicates()[59_999] == [119_999]


def test_nested_assignments_go_into_the_replaced_step() -> None:
    new = EstimatorNode("sklearn.neural_network.MLPClassifier")
    space = make((PIPELINE, [{"svc": [new], "svc__alpha": [0.1]}]))
    definition, rest = space.candidate(0).folded()
    assert rest == {}
    assert definition == PipelineNode(
        (("scale", EstimatorNode(SCALER)), ("svc", EstimatorNode(new.path, {"alpha": 0.1})))
    )


def test_named_parts_are_rewritten() -> None:
    voting = EstimatorNode(
        "sklearn.ensemble.VotingClassifier", {"estimators": NamedList((("a", EstimatorNode(SVC)), ("b", "drop")))}
    )
    definition, rest = make((voting, [{"a__C": [2], "b": [EstimatorNode(SVC)]}])).candidate(0).folded()
    assert rest == {}
    assert definition == EstimatorNode(
        voting.path, {"estimators": NamedList((("a", EstimatorNode(SVC, {"C": 2})), ("b", EstimatorNode(SVC))))}
    )


def test_what_is_no_rewriting_stays_an_assignment() -> None:
    boosting = EstimatorNode("sklearn.ensemble.AdaBoostClassifier")
    definition, rest = make((boosting, [{"estimator__max_depth": [1]}])).candidate(0).folded()
    assert (definition, rest) == (boosting, {"estimator__max_depth": 1})


def test_a_folded_candidate_equals_set_params() -> None:
    from containers.scikit.build import build, make_estimator

    space = make((PIPELINE, [{"scale": ["passthrough", EstimatorNode(SCALER)], "svc__C": [1, 10]}]))
    for candidate in space:
        definition, rest = candidate.folded()
        assert rest == {}
        assert repr(build(definition)) == repr(make_estimator(candidate))


def test_a_frozen_space_survives_json() -> None:
    frozen = FrozenSpace(
        (
            FrozenEntry("a", PIPELINE, ((("svc__C", (NumpyScalar("float64", 0.1), 1, 1.0)),), ())),
            FrozenEntry(None, EstimatorNode(SVC), draws=({"C": 0.5, "class_weight": {0: 1}}, {})),
        )
    )
    back = FrozenSpace.from_json(json.loads(json.dumps(frozen.to_json())))
    assert back == frozen
    assert back.digest() == frozen.digest()
    assert [candidate.entry_name for candidate in CandidateSpace(back)] == ["a"] * 4 + [None] * 2


def test_another_format_is_refused() -> None:
    with pytest.raises(ValueError, match="stored in format 99"):
        FrozenSpace.from_json({"format_version": 99, "entries": []})


def test_conditional_spaces_need_no_walk() -> None:
    spaces = [{"kernel": ["linear"], "C": [1, 2]}, {"kernel": ["rbf"], "C": [1, 2], "gamma": [0.1]}]
    assert not make((EstimatorNode(SVC), spaces)).has_duplicates_possible()
    assert make((EstimatorNode(SVC), [{"C": [1]}, {"C": [1, 2]}])).has_duplicates_possible()
    assert make((EstimatorNode(SVC), [{"C": [1, 1]}])).duplicates() == {0: [1]}


def test_describe_names_a_candidate() -> None:
    space = make((PIPELINE, [{"svc__C": [10]}]), (EstimatorNode(SVC, {"gamma": 0.001}), [{"C": [1.0]}]))
    assert [describe(candidate) for candidate in space] == ["StandardScaler > SVC(C=10)", "SVC(C=1.0, gamma=0.001)"]
