"""Every format gives the same matrix: order, types, missing values, roles of columns."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from containers.data import readers_csv, readers_npy
from containers.data.dataset import Dataset, ensure_dataset, open_dataset
from jobspec.errors import DataError
from jobspec.grammar.spec import DataSpec
from jobspec.stores.base import open_store

TEXT = "a,b,c,label\n1,2.5,true,x\n2,,false,y\n-3,1e-3,TRUE,x\n"
MATRIX = np.array([[1, 2.5, 1], [2, np.nan, 0], [-3, 1e-3, 1]])


def read(tmp_path: Path, extra: tuple[str, ...] = (), **data: Any) -> Dataset:
    store = open_store(str(tmp_path / "store"))
    return open_dataset(store, ensure_dataset(store, DataSpec(**data), tmp_path, extra))


def write(tmp_path: Path, text: str, name: str = "t.csv") -> str:
    (tmp_path / name).write_bytes(text.encode())
    return name


def assert_same(found: NDArray[Any], expected: NDArray[Any]) -> None:
    assert found.dtype == expected.dtype and np.array_equal(found, expected, equal_nan=found.dtype.kind == "f")


def test_csv(tmp_path: Path) -> None:
    dataset = read(tmp_path, path=write(tmp_path, TEXT), target="label")
    assert_same(dataset.X, MATRIX)
    assert dataset.X.flags.c_contiguous and not dataset.X.flags.writeable and type(dataset.X) is np.ndarray
    assert_same(dataset.y, np.array(["x", "y", "x"]))
    assert dataset.manifest.blocks[0].columns == ("a", "b", "c")


@pytest.mark.parametrize("prefix", [b"", b"\xef\xbb\xbf"])
def test_gzip_and_byte_order_mark(tmp_path: Path, prefix: bytes) -> None:
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(prefix + TEXT.encode()))
    dataset = read(tmp_path, path="t.csv.gz", target="label")
    assert_same(dataset.X, MATRIX)
    assert dataset.manifest.blocks[0].columns[0] == "a"


def test_members_of_a_gzip_file_follow_each_other(tmp_path: Path) -> None:
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(TEXT.encode()) + gzip.compress(b"7,8,0,z\n"))
    assert len(read(tmp_path, path="t.csv.gz", target="label").y) == 4


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1", "2", "3"], np.array([1, 2, 3])),
        (["1", "2", "2.5"], np.array([1, 2, 2.5])),
        (["true", "false", "true"], np.array([True, False, True])),
        (["1", "2", "b"], np.array(["1", "2", "b"])),
        ([" 1", "0x10", "2"], np.array([" 1", "0x10", "2"])),
        (["007", "8", "9"], np.array([7, 8, 9])),
        (["é", "😀", "<script>"], np.array(["é", "😀", "<script>"])),
    ],
)
def test_the_target_of_a_csv_has_the_type_of_all_its_values(
    tmp_path: Path, values: list[str], expected: NDArray[Any]
) -> None:
    text = "a,y\n" + "".join(f"{i},{value}\n" for i, value in enumerate(values))
    assert_same(read(tmp_path, path=write(tmp_path, text), target="y").y, expected)


def test_types_overrule_the_guess(tmp_path: Path) -> None:
    path = write(tmp_path, "a,y\n1,007\n2,NA\n")
    assert_same(read(tmp_path, path=path, target="y", types={"y": "string"}).y, np.array(["007", "NA"]))
    path = write(tmp_path, "a,y\n1,1\n2,0\n")
    assert_same(read(tmp_path, path=path, target="y", types={"y": "bool"}).y, np.array([True, False]))
    assert_same(read(tmp_path, path=path, target="y", types={"y": "float"}).y, np.array([1.0, 0.0]))


def test_columns_of_the_spec(tmp_path: Path) -> None:
    text = "id,g,w,f,a,b,y\n" + "".join(f"{i},g{i},0.{i},{i},{i}.5,{-i},{i}\n" for i in range(1, 4))
    options: dict[str, Any] = {
        "path": write(tmp_path, text),
        "target": "y",
        "groups": "g",
        "weights": "w",
        "drop": ("id",),
    }
    dataset = read(tmp_path, ("f",), **options)
    assert dataset.manifest.blocks[0].columns == ("a", "b")
    assert dataset.weights is not None and dataset.groups is not None
    assert_same(dataset.weights, np.array([0.1, 0.2, 0.3]))
    assert_same(dataset.groups, np.array(["g1", "g2", "g3"]))
    assert_same(dataset.extra["f"], np.array([1, 2, 3]))
    dataset = read(tmp_path, path=options["path"], target="y", features=("b", "a"), rows=2)
    assert_same(dataset.X, np.array([[-1, 1.5], [-2, 2.5]]))


@pytest.mark.parametrize("block", [64, 1 << 20])
def test_what_later_blocks_hold_is_read_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(readers_csv, "CHUNK_BYTES", block)
    early = "".join(f"{i},,{i % 2},1\n" for i in range(100))
    path = write(tmp_path, "a,b,c,y\n" + early + "1.5,true,false,x\n2,FALSE,1,y\n")
    dataset = read(tmp_path, path=path, target="y")
    assert dataset.X.shape == (102, 3)
    assert_same(dataset.X[-2:], np.array([[1.5, 1, 0], [2, 0, 1]]))
    assert_same(dataset.X[:100, 0], np.arange(100.0))
    assert dataset.y[0] == "1" and dataset.y[-1] == "y"


@given(st.lists(st.floats(allow_infinity=False), min_size=2, max_size=20))
def test_csv_floats_are_read_to_the_last_bit(tmp_path_factory: pytest.TempPathFactory, values: list[float]) -> None:
    folder = tmp_path_factory.mktemp("csv")
    if np.isnan(values).all():
        values[0] = 0.0
    text = "a,y\n" + "".join(f"{'' if np.isnan(v) else repr(v)},1\n" for v in values)
    found = read(folder, path=write(folder, text), target="y").X[:, 0]
    expected = np.array(values)
    assert np.array_equal(np.isnan(found), np.isnan(expected))
    kept = ~np.isnan(expected)
    assert found[kept].tobytes() == expected[kept].tobytes()


def test_large_floats_are_no_integers(tmp_path: Path) -> None:
    path = write(tmp_path, "a,y\n1e300,1\n9007199254740992,2\n9007199254740993.0,2\n")
    assert read(tmp_path, path=path, target="y").X[0, 0] == 1e300


def test_quoted_fields(tmp_path: Path) -> None:
    path = write(tmp_path, '"a, b","c""d",y\r\n"1",2,"two\nlines"\r\n3,4,"say ""x"""\r\n')
    dataset = read(tmp_path, path=path, target="y")
    assert dataset.manifest.blocks[0].columns == ("a, b", 'c"d')
    assert dataset.y.tolist() == ["two\nlines", 'say "x"']


def test_a_column_without_name_is_no_feature(tmp_path: Path) -> None:
    dataset = read(tmp_path, path=write(tmp_path, ",a,y\n0,5,1\n1,6,2\n"), target="y")
    assert dataset.manifest.blocks[0].columns == ("a",)
    assert "no name" in dataset.manifest.warnings[0]


def test_strange_names_and_ten_thousand_columns(tmp_path: Path) -> None:
    names = ["<script>", "=cmd()", "😀", *(f"c{i}" for i in range(9_997))]
    text = ",".join([*names, "y"]) + "\n" + "".join(",".join([str(i)] * 10_001) + "\n" for i in range(3))
    dataset = read(tmp_path, path=write(tmp_path, text), target="y")
    assert dataset.X.shape == (3, 10_000) and dataset.manifest.blocks[0].columns == tuple(names)


def parquet(tmp_path: Path, **columns: Any) -> str:
    pq.write_table(pa.table(columns), tmp_path / "t.parquet", row_group_size=2)
    return "t.parquet"


def test_parquet(tmp_path: Path) -> None:
    columns = {
        "a": pa.array([1, 2, -3]),
        "b": pa.array([2.5, None, 1e-3]),
        "c": pa.array([True, False, True]),
        "label": pa.array(["x", "y", "x"]).dictionary_encode(),
    }
    dataset = read(tmp_path, path=parquet(tmp_path, **columns), target="label")
    assert_same(dataset.X, MATRIX)
    assert_same(dataset.y, np.array(["x", "y", "x"]))


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint16(), pa.int32(), pa.float32(), pa.bool_()])
def test_a_typed_target_keeps_its_type(tmp_path: Path, kind: pa.DataType) -> None:
    values = pa.array([0, 1, 1]).cast(kind)
    dataset = read(tmp_path, path=parquet(tmp_path, a=[1, 2, 3], y=values), target="y", rows=2)
    assert_same(dataset.y, values.to_numpy(zero_copy_only=False)[:2])


def test_single_precision_only_where_all_features_have_it(tmp_path: Path) -> None:
    single, double = pa.array([1.1, 2.2], pa.float32()), pa.array([1.0, 2.0])
    assert read(tmp_path, path=parquet(tmp_path, a=single, b=single, y=double), target="y").X.dtype == np.float32
    assert read(tmp_path, path=parquet(tmp_path, a=single, b=double, y=double), target="y").X.dtype == np.float64
    options: dict[str, Any] = {
        "path": parquet(tmp_path, a=single, b=single, y=double),
        "target": "y",
        "dtype": "float64",
    }
    assert read(tmp_path, **options).X.dtype == np.float64


def test_a_pandas_index_is_no_feature(tmp_path: Path) -> None:
    table = pa.table({"a": [1, 2], "y": [1, 2], "__index_level_0__": [0, 1]})
    metadata = {b"pandas": b'{"index_columns": ["__index_level_0__"], "columns": []}'}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "t.parquet")
    dataset = read(tmp_path, path="t.parquet", target="y")
    assert dataset.manifest.blocks[0].columns == ("a",) and "index" in dataset.manifest.warnings[0]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f8", ">f8", "<f4", "<f2", "<i2", "?"])
@pytest.mark.parametrize("target", ["2", "-1"])
def test_npy(tmp_path: Path, order: Any, dtype: str, target: str) -> None:
    table = np.array([[1, 0, 1], [0, 1, 1], [1, 1, 0]], dtype, order=order)
    np.save(tmp_path / "t.npy", table)
    dataset = read(tmp_path, path="t.npy", target=target)
    wide = np.float32 if dtype == "<f4" else np.float64
    assert_same(dataset.X, table[:, :2].astype(wide))
    assert_same(dataset.y, table[:, 2].astype(table.dtype.newbyteorder("=")))
    assert dataset.manifest.blocks[0].columns == ("0", "1")


def test_npy_of_records(tmp_path: Path) -> None:
    table = np.array([(1, 2.5, "x", b"g"), (2, np.nan, "yy", b"h")], "i4,f8,U3,S2")
    np.save(tmp_path / "t.npy", table)
    dataset = read(tmp_path, path="t.npy", target="f2", groups="f3")
    assert_same(dataset.X, np.array([[1, 2.5], [2, np.nan]]))
    assert_same(dataset.y, np.array(["x", "yy"]))
    assert dataset.groups is not None and dataset.groups.tolist() == ["g", "h"]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npz(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save: Any, order: Any) -> None:
    monkeypatch.setattr(readers_npy, "CHUNK_BYTES", 100)
    matrix = np.asarray(np.random.default_rng(0).standard_normal((50, 3)), order=order)
    y, g, w = np.arange(50) % 2 == 0, np.arange(50, dtype=np.uint8), np.linspace(0, 1, 50)
    objects = np.array([{}] * 50)  # what nobody names may be anything
    save(tmp_path / "t.npz", X=matrix, y=y, g=g, w=w, objects=objects)
    dataset = read(tmp_path, path="t.npz", target="y", groups="g", weights="w")
    assert_same(dataset.X, np.ascontiguousarray(matrix))
    assert_same(dataset.y, y)
    assert dataset.groups is not None and dataset.weights is not None
    assert_same(dataset.groups, g)
    assert_same(dataset.weights, w)
    dataset = read(tmp_path, path="t.npz", target="g", features=("2", "0"), rows=31)
    assert_same(dataset.X, np.ascontiguousarray(matrix[:31, [2, 0]]))


def test_npz_takes_y_by_default(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", X=np.eye(3), y=np.array(["a", "b", "b"]))
    assert_same(read(tmp_path, path="t.npz").y, np.array(["a", "b", "b"]))


@pytest.mark.parametrize("name", ["iris", "digits", "wine", "breast_cancer", "diabetes"])
def test_builtin_sets(tmp_path: Path, name: str) -> None:
    from sklearn import datasets

    matrix, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    dataset = read(tmp_path, builtin=name)
    assert_same(dataset.X, np.ascontiguousarray(matrix, np.float64))
    assert_same(dataset.y, y)
    assert len(read(tmp_path, builtin=name, rows=60).y) == 60


def test_the_format_can_be_named(tmp_path: Path) -> None:
    write(tmp_path, TEXT, "table.data")
    assert len(read(tmp_path, path="table.data", format="csv", target="label").y) == 3
    with pytest.raises(DataError, match=r"data\.format: csv"):
        read(tmp_path, path="table.data", target="label")
