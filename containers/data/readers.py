"""Which reader opens a file, and why a file cannot be opened."""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath

from containers.data.sources import Source
from jobspec.errors import DataError
from jobspec.names import closest

READER_VERSION = 1
"""Raise when any reader makes other arrays of the same bytes, so that old datasets are not taken for new ones."""

_SUFFIXES = {
    ".csv": "csv",
    ".csv.gz": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".npy": "npy",
    ".npz": "npz",
}
_LATER = (
    ".bz2",
    ".zst",
    ".xz",
    ".orc",
    ".feather",
    ".arrow",
    ".svmlight",
    ".libsvm",
    ".arff",
    ".tsv",
    ".xlsx",
    ".json",
)


def find_format(path: str, given: str | None) -> str:
    """Return the format of a file: the given one, else by the name's ending.

    Raises:
        DataError: an unknown ending, or a format that is not read yet.
    """
    if given is not None:
        return given
    name = path.lower()
    for suffix in sorted(_SUFFIXES, key=len, reverse=True):
        if name.endswith(suffix):
            return _SUFFIXES[suffix]
    ending = PurePosixPath(name).suffix
    what = f"{ending} files are not read yet" if ending in _LATER else f"the ending {ending!r} says no format"
    raise DataError(
        f"{path}: {what}. Allowed are {', '.join(_SUFFIXES)}, or name the format with `data.format: csv`."
        + closest(ending, _SUFFIXES)
    )


def stat_source(path: Path) -> os.stat_result:
    """Return the stat of a readable data file, or say why it cannot be read.

    Raises:
        DataError: nothing is there, it is no file, or it may not be read.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            what = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
            raise DataError(f"The data path {path} is {what}. Name one file with `data.path`.")
        with path.open("rb"):
            return status
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(_describe_absence(path)) from None
    except PermissionError:
        raise DataError(
            f"The data file {path} is there, but this user has no permission to read it (or a folder above it). "
            f"Allow it: `chmod a+r {path}`."
        ) from None
    except OSError as error:
        raise DataError(f"The data file {path} cannot be read: {error.strerror}. Check `data.path`.") from None


def _describe_absence(path: Path) -> str:
    text = f"There is no data file {path}."
    if not path.parent.is_dir():
        return f"{text} Its folder {path.parent} does not exist either. Relative paths begin at the spec's folder."
    names = [entry.name for entry in path.parent.iterdir() if entry.is_file()]
    return f"{text}{closest(path.name, names)} Relative paths begin at the spec's folder."


def open_file(path: Path, kind: str) -> Source:
    """Open a file of a known format; only headers are read."""
    if kind == "csv":
        from containers.data.readers_csv import CsvSource

        return CsvSource(path)
    if kind == "parquet":
        from containers.data.readers_parquet import ParquetSource

        return ParquetSource(path)
    from containers.data.readers_npy import open_npy, open_npz

    return open_npy(path) if kind == "npy" else open_npz(path)
