"""Items 18 to 29 of bad input: refused in one paragraph that names the place and the remedy, nothing stored."""

from __future__ import annotations

import gzip
import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from containers.data import readers_csv, sources
from containers.data.dataset import ensure_dataset
from jobspec.errors import DataError, ExitCode
from jobspec.grammar.spec import DataSpec
from jobspec.search.inspection import Manifest
from jobspec.stores.base import open_store

GOOD = "a,b,y\n1,2,x\n3,4,y\n5,7,x\n"


def read(tmp_path: Path, extra: tuple[str, ...] = (), **data: Any) -> Manifest:
    return ensure_dataset(open_store(str(tmp_path / "store")), DataSpec(**data), tmp_path, extra)


def refuse(tmp_path: Path, *words: str, extra: tuple[str, ...] = (), **data: Any) -> str:
    """Read and expect a refusal that holds all words, is one paragraph and leaves no dataset behind."""
    with pytest.raises(DataError) as caught:
        read(tmp_path, extra, **({"target": "y"} | data))
    message = caught.value.message
    assert caught.value.exit_code == ExitCode.DATA
    for word in words:
        assert word in message, message
    assert "Traceback" not in message and message.rstrip().count("\n\n") == 0 and message.endswith((".", ")", "?", "`"))
    assert not list((tmp_path / "store").glob("datasets/*"))
    return message


def csv(tmp_path: Path, text: str | bytes) -> str:
    (tmp_path / "t.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return "t.csv"


# 18


def test_a_missing_file(tmp_path: Path) -> None:
    csv(tmp_path, GOOD)
    refuse(tmp_path, "There is no data file", "t.cvs", "Did you mean 't.csv'?", path="t.cvs")
    refuse(tmp_path, "Its folder", "does not exist", path="no/t.csv")
    refuse(tmp_path, "is a folder", path=".", format="csv")
    refuse(tmp_path, "names no object", path="s3://bucket", format="csv")
    refuse(tmp_path, "neither a file nor an `s3://` URL", path="gs://bucket/t.csv")


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = csv(tmp_path, GOOD)

    def deny(*arguments: Any, **options: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", deny)  # root may read everything
    refuse(tmp_path, "is there", "no permission", "chmod a+r", path=path)


@pytest.mark.parametrize("name", ["t.csv.bz2", "t.arff", "t.xlsx"])
def test_formats_of_later(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(GOOD)
    refuse(tmp_path, "not read yet", ".parquet", path=name)


# 19


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("target", "colour"),
        ("features", ("colour",)),
        ("drop", ("colour",)),
        ("groups", "colour"),
        ("weights", "colour"),
    ],
)
def test_a_missing_column(tmp_path: Path, key: str, value: Any) -> None:
    path = csv(tmp_path, "color,b,y\n1,2,3\n4,5,6\n")
    refuse(tmp_path, f"`data.{key}`", "'colour'", "Did you mean 'color'?", path=path, **{key: value})


def test_a_missing_fold_column_type_or_array(tmp_path: Path) -> None:
    path = csv(tmp_path, GOOD)
    refuse(tmp_path, "`cv.test_fold`", "'fold'", extra=("fold",), path=path)
    refuse(tmp_path, "`data.types`", "'zip'", path=path, types={"zip": "string"})
    np.savez(tmp_path / "t.npz", X=np.eye(3), labels=np.arange(3))
    refuse(tmp_path, "'label'", "Did you mean 'labels'?", path="t.npz", target="label")
    np.savez(tmp_path / "u.npz", data=np.eye(3), y=np.arange(3))
    refuse(tmp_path, "no array 'X'", "'data'", path="u.npz")
    np.save(tmp_path / "t.npy", np.eye(3))
    refuse(tmp_path, "'3'", "'0', '1', '2'", "'-1'", path="t.npy", target="3")
    refuse(tmp_path, "`data.target` is missing", path="t.npy", target=None)


def test_hints_at_headers_and_separators(tmp_path: Path) -> None:
    refuse(tmp_path, "first line must be the header", path=csv(tmp_path, "5.1,3.5,setosa\n4.9,3.0,virginica\n"))
    refuse(tmp_path, "separated by another sign", path=csv(tmp_path, "a;b;y\n1;2;3\n"))


def test_columns_in_two_places(tmp_path: Path) -> None:
    path = csv(tmp_path, GOOD)
    refuse(tmp_path, "'y'", "`data.features`", "target", path=path, features=("a", "y"))
    refuse(tmp_path, "'a'", "2 times", path=path, features=("a", "a"))
    refuse(tmp_path, "no feature column is left", path=path, drop=("a", "b"))


# 20, 21


@pytest.mark.parametrize("block", [64, 1 << 23])
def test_a_ragged_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(readers_csv, "CHUNK_BYTES", block)
    text = "a,b,y\n" + "1,2,3\n" * 100 + "1,2\n" + "1,2,3\n"
    refuse(tmp_path, "row 101", "line 102", "2 fields", "header has 3", "'1,2'", path=csv(tmp_path, text))


def test_an_unclosed_quote(tmp_path: Path) -> None:
    refuse(tmp_path, "quotes", "never closed", path=csv(tmp_path, 'a,b,y\n1,2,"x\n3,4,y\n5,6,z\n'))


def test_duplicate_names(tmp_path: Path) -> None:
    refuse(tmp_path, "'a'", "positions 1, 3", path=csv(tmp_path, "a,b,a,y\n1,2,3,4\n5,6,7,8\n"))
    pq.write_table(pa.Table.from_arrays([pa.array([1, 2])] * 3, names=["a", "a", "y"]), tmp_path / "t.parquet")
    refuse(tmp_path, "'a'", "positions 1, 2", path="t.parquet")


# 22


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b,y\n1,2,Zürich\n3,4,x\n".encode("latin-1"), ("0xfc", "offset 11", "Latin-1", "iconv")),
        ("größe,b,y\n1,2,3\n".encode("latin-1"), ("0xf6", "offset 2", "Latin-1")),
        ("a,b,y\n1,ü,3\n4,5,6\n".encode("latin-1"), ("0xfc", "offset 8", "Latin-1")),
        (GOOD.encode("utf-16"), ("UTF-16", "offset 0", "ff fe")),
        (GOOD.encode("utf-16-be"), ("UTF-16", "offset 0")),
    ],
)
def test_encodings(tmp_path: Path, text: bytes, words: tuple[str, ...]) -> None:
    refuse(tmp_path, *words, path=csv(tmp_path, text))


# 23


@pytest.mark.parametrize("block", [64, 1 << 23])
@pytest.mark.parametrize("value", ["abc", "?", "1,5", "2024-01-01", "0x10", "1_000", "12:30"])
def test_text_among_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, value: str) -> None:
    monkeypatch.setattr(readers_csv, "CHUNK_BYTES", block)
    text = "a,b,y\n" + "1,2,3\n" * 100 + f'1,"{value}",3\n' + "1,2,3\n"
    refuse(tmp_path, "'b'", repr(value), "row 101", "drop: [b]", path=csv(tmp_path, text))


def test_text_in_the_first_row_and_booleans_among_numbers(tmp_path: Path) -> None:
    refuse(tmp_path, "'a'", "'red'", "row 1", path=csv(tmp_path, "a,b,y\nred,2,3\nblue,5,6\n"))
    refuse(tmp_path, "'a'", "'true'", "row 1", path=csv(tmp_path, "a,b,y\ntrue,2,3\n5,5,6\n"))
    refuse(tmp_path, "'a'", "'true'", "row 2", path=csv(tmp_path, "a,b,y\n5,2,3\ntrue,5,6\n"))
    refuse(tmp_path, "'a'", "string", path=csv(tmp_path, GOOD), types={"a": "string"})


def test_typed_columns_that_are_no_numbers(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": ["x", "y"], "y": [1, 2]}), tmp_path / "t.parquet")
    refuse(tmp_path, "'a'", "string", "drop: [a]", path="t.parquet")
    np.save(tmp_path / "t.npy", np.array([["1", "2"], ["3", "4"]]))
    refuse(tmp_path, "'0'", "<U1", path="t.npy", target="1")


def test_integers_that_float64_cannot_hold(tmp_path: Path) -> None:
    big = 2**53 + 1
    text = f"a,b,y\n1,2,3\n4,5,6\n7,{big},9\n"
    refuse(tmp_path, "'b'", str(big), "row 3", "2**53", path=csv(tmp_path, text))
    pq.write_table(pa.table({"a": [1, -big], "y": [1, 2]}), tmp_path / "t.parquet")
    refuse(tmp_path, "'a'", str(-big), "row 2", path="t.parquet")
    for order in ("C", "F"):
        np.save(tmp_path / "t.npy", np.array([[1, 2], [big, 3]], order=order))
        refuse(tmp_path, "'0'", str(big), "row 2", path="t.npy", target="1")
    assert read(tmp_path, path=csv(tmp_path, text.replace(str(big), str(2**53))), target="y").num_rows == 3


# 24


@pytest.mark.parametrize("value", ["inf", "-inf", "1e999", "Infinity"])
@pytest.mark.parametrize("block", [64, 1 << 23])
def test_infinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, block: int) -> None:
    monkeypatch.setattr(readers_csv, "CHUNK_BYTES", block)
    text = "a,b,y\n" + "1,2,3\n" * 100 + f"1,{value},3\n"
    refuse(tmp_path, "'b'", "inf", "row 101", "drop: [b]", path=csv(tmp_path, text))
    refuse(tmp_path, "'b'", "inf", "row 101", path="t.csv", target="b")


def test_columns_without_values_or_with_one(tmp_path: Path) -> None:
    refuse(tmp_path, "'b'", "without a single value", "drop: [b]", path=csv(tmp_path, "a,b,y\n1,,3\n2,NA,3\n"))
    manifest = read(tmp_path, path=csv(tmp_path, "a,b,c,y\n1,5,,3\n2,5,7,3\n3,,7,4\n"), target="y")
    assert any("'b', 'c'" in text and "one value" in text for text in manifest.warnings)
    assert any("2 in all" in text for text in manifest.warnings)


@pytest.mark.parametrize("value", ["", "NA", "nan"])
def test_a_missing_target(tmp_path: Path, value: str) -> None:
    refuse(tmp_path, "'y'", "no value in row 2", path=csv(tmp_path, f"a,y\n1,2\n3,{value}\n"))
    refuse(tmp_path, "'y'", "no value in row 2", path=csv(tmp_path, f"a,y\n1,x\n3,{value}\n"))
    refuse(tmp_path, "'g'", "no value in row 2", path=csv(tmp_path, f"a,g,y\n1,x,1\n3,{value},2\n"), groups="g")
    pq.write_table(pa.table({"a": [1, 2], "y": [1.5, None]}), tmp_path / "t.parquet")
    refuse(tmp_path, "'y'", "no value in row 2", path="t.parquet")


def test_weights_and_declared_types(tmp_path: Path) -> None:
    text = "a,w,y\n1,-2,3\n2,1,4\n"
    refuse(tmp_path, "'w'", "-2", "row 1", "negative", path=csv(tmp_path, text), weights="w")
    refuse(tmp_path, "'w'", "'x'", "numbers", path=csv(tmp_path, text.replace("-2", "x")), weights="w")
    refuse(
        tmp_path, "'y'", "declared int", "row 2", "'4.5'", path=csv(tmp_path, "a,y\n1,3\n2,4.5\n"), types={"y": "int"}
    )
    refuse(tmp_path, "'y'", "64 bits", "string", path=csv(tmp_path, f"a,y\n1,{10**30}\n2,5\n"))


# 25


def npy(tmp_path: Path, array: Any, cut: int | None = None, more: bytes = b"") -> str:
    buffer = io.BytesIO()
    np.save(buffer, array)
    (tmp_path / "t.npy").write_bytes(buffer.getvalue()[:cut] + more)
    return "t.npy"


def test_damaged_npy(tmp_path: Path) -> None:
    table = np.arange(12.0).reshape(4, 3)
    options: dict[str, Any] = {"target": "2"}
    refuse(tmp_path, "cut short", "224", "220", path=npy(tmp_path, table, cut=-4), **options)
    refuse(tmp_path, "extra bytes", "224", "227", path=npy(tmp_path, table, more=b"abc"), **options)
    refuse(tmp_path, "objects", "pickle", "astype(str)", path=npy(tmp_path, table.astype(object)), **options)
    refuse(tmp_path, "shape (12,)", "two dimensions", path=npy(tmp_path, table.ravel()), **options)
    refuse(tmp_path, "shape (1, 4, 3)", path=npy(tmp_path, table[None]), **options)
    refuse(tmp_path, "header", path=npy(tmp_path, table, cut=50), **options)
    refuse(tmp_path, "npy format", path=npy(tmp_path, table, cut=3), **options)
    refuse(tmp_path, "complex128", path=npy(tmp_path, table.astype(complex)), **options)


@pytest.mark.parametrize("text", ["{'descr': 'O'}", "[" * 5000, "{'descr': '<f8', 'fortran_order': 0, 'shape': (-1,)}"])
def test_hostile_npy_headers(tmp_path: Path, text: str) -> None:
    body = text.encode()
    (tmp_path / "t.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body)
    refuse(tmp_path, "damaged npy header", path="t.npy", target="0")


def test_damaged_npz(tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    np.savez(path, X=np.eye(300), y=np.arange(300))
    good = path.read_bytes()
    path.write_bytes(good[:-30])
    refuse(tmp_path, "NPZ", path="t.npz")
    path.write_bytes(good[:5000] + b"\x01" + good[5001:])
    refuse(tmp_path, "'X'", "CRC-32", path="t.npz")
    np.savez(path, X=np.eye(3), y=np.array(["a", None, "b"], object))
    refuse(tmp_path, "'y'", "objects", "astype(str)", path="t.npz")
    np.savez(path, X=np.eye(3), y=np.arange(4))
    refuse(tmp_path, "'y'", "(4,)", "X has 3 rows", path="t.npz")
    np.savez(path, X=np.eye(3), y=np.arange(3)[:, None])
    refuse(tmp_path, "'y'", "(3, 1)", path="t.npz")


def test_damaged_compression_and_parquet(tmp_path: Path) -> None:
    packed = gzip.compress((GOOD * 50).encode())
    for body in (packed[:-12], packed[:40] + b"\0\0\0" + packed[43:]):
        (tmp_path / "t.csv.gz").write_bytes(body)
        refuse(tmp_path, "gzip", path="t.csv.gz")
    (tmp_path / "t.parquet").write_bytes(b"PAR1 nothing PAR1")
    refuse(tmp_path, "Parquet", path="t.parquet")


# 26


def test_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "SMALL_UNPACKED_BYTES", 2**20)
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"a,y\n" + b"0,0\n" * 10**6))
    refuse(tmp_path, "unpacks from", "250 times", path="t.csv.gz")
    np.savez_compressed(tmp_path / "t.npz", X=np.zeros((1000, 1000)), y=np.arange(1000))
    refuse(tmp_path, "8000128 bytes", "250 times", path="t.npz")
    pq.write_table(pa.table({"a": np.zeros(10**6), "y": np.zeros(10**6)}), tmp_path / "t.parquet")
    refuse(tmp_path, "8000000 bytes", "250 times", path="t.parquet")


def test_a_bomb_that_lies_about_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.npz"
    np.savez_compressed(path, X=np.zeros((1000, 100)), y=np.arange(1000))
    with zipfile.ZipFile(path) as archive:
        size = archive.getinfo("X.npy").file_size
    path.write_bytes(path.read_bytes().replace(size.to_bytes(4, "little"), (1000).to_bytes(4, "little")))
    refuse(tmp_path, "'X'", path="t.npz")


# 27 (a change while the data are read; later changes make another dataset)


def test_a_file_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / csv(tmp_path, GOOD)
    true_chunks = readers_csv.CsvSource.chunks

    def chunks(*arguments: Any) -> Any:
        yield from true_chunks(*arguments)
        path.write_text(GOOD + "7,8,x\n")

    monkeypatch.setattr(readers_csv.CsvSource, "chunks", chunks)
    refuse(tmp_path, "changed while it was being read", path="t.csv")


# 28


def test_too_few_rows(tmp_path: Path) -> None:
    refuse(tmp_path, "0 rows", path=csv(tmp_path, ""))
    refuse(tmp_path, "0 rows", path=csv(tmp_path, "a,b,y\n"))
    refuse(tmp_path, "1 row", path=csv(tmp_path, "a,b,y\n1,2,3\n"))
    refuse(tmp_path, "1 row", path=csv(tmp_path, GOOD), rows=1)
    np.savez(tmp_path / "t.npz", X=np.zeros((0, 3)), y=np.zeros(0))
    refuse(tmp_path, "0 rows", path="t.npz")
    np.save(tmp_path / "t.npy", np.zeros((0, 3)))
    refuse(tmp_path, "0 rows", path="t.npy", target="2")
    pq.write_table(pa.table({"a": pa.array([], pa.float64()), "y": pa.array([], pa.float64())}), tmp_path / "t.parquet")
    refuse(tmp_path, "0 rows", path="t.parquet")


# 36


def test_a_full_disk_says_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    from containers.data.npyfile import NpyWriter
    from jobspec.errors import TryLaterError

    def fail(self: NpyWriter, rows: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(NpyWriter, "append", fail)
    with pytest.raises(TryLaterError, match=r"full.*needed.*free"):
        read(tmp_path, path=csv(tmp_path, GOOD), target="y")
    assert not list((tmp_path / "store").glob(".tmp/*"))
