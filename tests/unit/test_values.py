from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobspec.grammar.values import (
    Distribution,
    EstimatorNode,
    FunctionNode,
    Generator,
    NamedList,
    NumpyScalar,
    ObjectNode,
    PipelineNode,
    SplitterNode,
    canonical_json,
    decode,
    digest,
    encode,
    plain,
    show,
)

NAMES = st.text(max_size=8)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.integers(2**62, 2**70), st.floats(), NAMES)
KEYS = st.one_of(NAMES, st.integers(), st.booleans(), st.none(), st.just("$estimator"))


def _extend(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    params = st.dictionaries(NAMES, values, max_size=3)
    pairs = st.lists(st.tuples(NAMES, values), max_size=3).map(tuple)
    tuples = st.lists(values, max_size=3).map(tuple)
    return st.one_of(
        st.lists(values, max_size=3),
        tuples,
        st.dictionaries(KEYS, values, max_size=3),
        st.builds(EstimatorNode, NAMES, params),
        st.builds(PipelineNode, pairs),
        st.builds(NamedList, pairs),
        st.builds(FunctionNode, NAMES),
        st.builds(ObjectNode, NAMES, tuples, params),
        st.builds(SplitterNode, NAMES, params),
        st.builds(NumpyScalar, st.just("float64"), st.floats()),
        st.builds(NumpyScalar, st.just("int64"), st.integers()),
        st.builds(Generator, st.just("linspace"), tuples, st.sampled_from([None, "int"])),
        st.builds(Distribution, st.just("uniform"), tuples),
    )


VALUES = st.recursive(SCALARS, _extend, max_leaves=12)


@given(VALUES)
def test_every_value_survives_canonical_json(value: Any) -> None:
    document = encode(value)
    back = decode(json.loads(canonical_json(document)))
    # repr tells 1, 1.0, True, -0.0 and nan apart, where == does not; encoding again ignores only key order
    assert canonical_json(encode(back)) == canonical_json(document)
    assert type(back) is type(value)
    if not isinstance(value, dict) and "{" not in repr(value):
        assert repr(back) == repr(value)


def test_look_alikes_have_different_digests() -> None:
    values: list[Any] = [
        1,
        1.0,
        True,
        "1",
        None,
        -0.0,
        0.0,
        0,
        [1],
        (1,),
        {"1": 1},
        {1: 1},
        math.nan,
        "nan",
        math.inf,
        "$x",
    ]
    values += [NumpyScalar("float64", 1.0), NumpyScalar("int64", 1), {"$float": "nan"}, {"$x": 1}]
    assert len({digest(encode(value)) for value in values}) == len(values)


def test_objects_that_are_no_values_are_refused() -> None:
    with pytest.raises(TypeError, match="set is no parameter value"):
        encode({1, 2})  # type: ignore[arg-type]


def test_unknown_tags_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown tag '\$pickle'"):
        decode({"$pickle": "..."})


def test_show_reads_like_python() -> None:
    svc = EstimatorNode("sklearn.svm.SVC", {"gamma": NumpyScalar("float64", 0.001), "C": 1.0})
    assert show(svc) == "SVC(C=1.0, gamma=0.001)"
    assert show(PipelineNode((("s", "passthrough"), ("m", svc)))) == "passthrough > SVC(C=1.0, gamma=0.001)"
    assert show(1 / 3) == "0.333333"
    assert show((1,)) == "(1,)"


def test_plain_is_json() -> None:
    value: Any = {1: (math.nan, NumpyScalar("float64", 0.5)), "f": FunctionNode("numpy.log1p")}
    assert json.dumps(plain(value), allow_nan=False) == '{"1": ["nan", 0.5], "f": "log1p"}'
