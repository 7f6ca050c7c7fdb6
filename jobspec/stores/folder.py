"""The store in a folder: hard links make creation atomic, fsync makes it durable."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from jobspec.errors import AccessError, DataError, FoldfleetError, NotFoundError, TryLaterError
from jobspec.hostlock import HostLock
from jobspec.stores.base import Checksum, Entry
from jobspec.stores.layout import Layout

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}
_TEMPORARY = ".tmp"
_STALE_SECONDS = 24 * 3600


class FolderStore:
    """Keep each object as one file below ``root``."""

    streams = 1

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = str(root)

    def create(self, key: str, body: bytes) -> bool:
        """Store ``body`` durably if ``key`` is free; return whether this call won."""
        path = self._path(key)
        with explained(path, len(body)):
            if path.exists():
                return False
            temporary = self._write_temporary(body)
            try:
                return _publish(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)

    def create_file(self, key: str, path: Path) -> bool:
        """Take a staged file into the store without a copy if ``key`` is free."""
        target = self._path(key)
        with explained(target, path.stat().st_size):
            _sync_file(path)
            try:
                return not target.exists() and _publish(path, target)
            finally:
                path.unlink(missing_ok=True)

    def get(self, key: str) -> bytes:
        """Return an object; raise NotFoundError if there is none."""
        body = self.get_or_none(key)
        if body is None:
            raise NotFoundError(f"There is no object {key!r} in the store {self.url}.")
        return body

    def get_or_none(self, key: str) -> bytes | None:
        """Return an object, or None if there is none."""
        path = self._path(key)
        with explained(path, 0):
            try:
                return path.read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Return exactly ``length`` bytes from ``start``."""
        path = self._path(key)
        with explained(path, 0), path.open("rb") as file:
            file.seek(start)
            body = file.read(length)
        if len(body) != length:
            raise DataError(
                f"The object {key!r} in {self.url} is cut short: {length} bytes from {start} were asked for, "
                f"{len(body)} are there. Delete the dataset's folder and run the same command again."
            )
        return body

    @contextlib.contextmanager
    def ranges(self, key: str) -> Iterator[FileRanges]:
        """Open an object to be read in pieces; a replaced file stays readable under its descriptor."""
        path = self._path(key)
        with explained(path, 0):
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except (FileNotFoundError, NotADirectoryError):
                raise NotFoundError(f"There is no object {key!r} in the store {self.url}.") from None
        try:
            yield FileRanges(key, descriptor)
        finally:
            os.close(descriptor)

    def tagged(self, key: str) -> tuple[bytes, str] | None:
        """Return an object with the tag of its version."""
        path = self._path(key)
        with explained(path, 0):
            try:
                with path.open("rb") as file:
                    return file.read(), _tag(os.fstat(file.fileno()))
            except (FileNotFoundError, NotADirectoryError):
                return None

    def tag(self, key: str) -> str | None:
        """Return the tag of an object's version."""
        status = self._stat(key)
        return None if status is None else _tag(status)

    def swap(self, key: str, body: bytes, tag: str | None) -> bool:
        """Replace a view if it still is the version with this tag."""
        path = self._path(key)
        with explained(path, len(body)), HostLock(self.root / Layout.swaps()):
            same = self.tag(key) == tag
            if same:
                self._replace(self._write_temporary(body), path)
            return same

    def swap_file(self, key: str, path: Path, tag: str | None) -> bool:
        """Replace a view by a staged file if it still is the version with this tag."""
        target = self._path(key)
        with explained(target, path.stat().st_size), HostLock(self.root / Layout.swaps()):
            same = self.tag(key) == tag
            if same:
                _sync_file(path)
                self._replace(path, target)
            path.unlink(missing_ok=True)
            return same

    def size(self, key: str) -> int | None:
        """Return an object's length in bytes, or None if there is none."""
        status = self._stat(key)
        return None if status is None else status.st_size

    def exists(self, key: str) -> bool:
        """Say whether an object is there."""
        return self.size(key) is not None

    def put(self, key: str, body: bytes) -> None:
        """Replace a view atomically."""
        path = self._path(key)
        with explained(path, len(body)):
            self._replace(self._write_temporary(body), path)

    def put_file(self, key: str, path: Path) -> None:
        """Replace a view by a staged file."""
        target = self._path(key)
        with explained(target, path.stat().st_size):
            _sync_file(path)
            self._replace(path, target)

    def delete(self, key: str) -> None:
        """Remove an object; an absent one is no error."""
        path = self._path(key)
        with explained(path, 0):
            path.unlink(missing_ok=True)

    def keys(self, prefix: str) -> Iterator[str]:
        """Yield the keys below ``prefix`` in order."""
        for entry in self.entries(prefix):
            yield entry.key

    def entries(self, prefix: str) -> Iterator[Entry]:
        """Yield what lies below ``prefix`` in order."""
        top = self._path(prefix.rstrip("/"))
        for folder, names, files in os.walk(top):
            names.sort()
            for file in sorted(files):
                path = Path(folder) / file
                with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                    status = path.stat()
                    yield Entry(path.relative_to(self.root).as_posix(), status.st_size, status.st_mtime)

    def folders(self, prefix: str) -> list[str]:
        """Return the names of the folders one level below ``prefix``."""
        try:
            with os.scandir(self._path(prefix.rstrip("/"))) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def unfinished(self, before: float) -> Iterator[Entry]:
        """Yield the files of killed writers."""
        for entry in self.entries(_TEMPORARY):
            if entry.written < before:
                yield entry

    def discard(self, upload: Entry) -> None:
        """Remove what `unfinished` found."""
        self.delete(upload.key)

    def local_path(self, key: str) -> Path | None:
        """Return the file behind a key."""
        return self._path(key)

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        """Give an empty folder on the store's own file system; what is left in it is removed."""
        folder = self.root / _TEMPORARY / uuid.uuid4().hex
        with explained(folder, 0):
            folder.mkdir(parents=True)
        self._remove_stale()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _path(self, key: str) -> Path:
        if not key or key.startswith("/") or ".." in key.split("/"):
            raise AccessError(f"The key {key!r} would leave the store {self.url}.")
        return self.root / key

    def _stat(self, key: str) -> os.stat_result | None:
        path = self._path(key)
        with explained(path, 0):
            try:
                return path.stat()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def _write_temporary(self, body: bytes) -> Path:
        folder = self.root / _TEMPORARY
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / uuid.uuid4().hex
        with path.open("xb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        return path

    def _replace(self, temporary: Path, path: Path) -> None:
        _make_folder(path.parent)
        temporary.replace(path)
        _sync_folder(path.parent)

    def _remove_stale(self) -> None:
        """Remove what killed processes left behind a day ago or earlier."""
        limit = time.time() - _STALE_SECONDS
        for path in (self.root / _TEMPORARY).iterdir():
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < limit:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()


class FileRanges:
    """An open file; positioned reads, so that threads do not share a place in it."""

    streams = 1

    def __init__(self, key: str, descriptor: int) -> None:
        status = os.fstat(descriptor)
        self.size = status.st_size
        self.tag = _tag(status)
        self._key = key
        self._descriptor = descriptor

    def read_into(self, offset: int, target: memoryview) -> None:
        """Fill ``target`` with the file's bytes from ``offset`` on."""
        while target:
            count = os.preadv(self._descriptor, [target], offset)
            if not count:
                raise DataError(f"The stored object {self._key!r} is cut short. Run the same command again.")
            target, offset = target[count:], offset + count

    def checksum(self) -> Checksum | None:
        """Return None: a file system tells nothing of its files' bytes."""
        return None


def _tag(status: os.stat_result) -> str:
    """Return what tells one version of a file from the next: every one is a new file."""
    return f"{status.st_ino}-{status.st_mtime_ns}-{status.st_size}"


def _publish(temporary: Path, path: Path) -> bool:
    """Give a durable file its final name unless the name is taken (`os.link` never overwrites)."""
    _make_folder(path.parent)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if not _rename_without_replace(temporary, path):
            return False
    _sync_folder(path.parent)
    return True


def _rename_without_replace(source: Path, target: Path) -> bool:
    """Rename on file systems without hard links: Linux's renameat2 with RENAME_NOREPLACE."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        raise OSError(errno.ENOTSUP, "neither hard links nor renameat2 work here", str(target))
    at_fdcwd, noreplace = -100, 1
    if renameat2(at_fdcwd, os.fsencode(source), at_fdcwd, os.fsencode(target), noreplace) == 0:
        return True
    code = ctypes.get_errno()
    if code == errno.EEXIST:
        return False
    raise OSError(code, os.strerror(code), str(target))


def _make_folder(folder: Path) -> None:
    """Make a folder and its parents, each name durable in the folder above it."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def explained(path: Path, needed_bytes: int) -> Iterator[None]:
    """Turn the operating system's refusals into errors that say what to do."""
    try:
        yield
    except OSError as error:
        raise explain_os_error(error, path, needed_bytes) from error


def explain_os_error(error: OSError, path: Path, needed_bytes: int) -> FoldfleetError | OSError:
    """Return the error to raise for a failed write at ``path``; an unknown one comes back as it is."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return TryLaterError(
            f"The disk that holds {path} is full: {_told(needed_bytes)}{free_bytes(path)} are free. "
            "Free some space, or name another folder with --store or FOLDFLEET_CACHE, then run the same command again."
        )
    if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return AccessError(
            f"{path} cannot be used: {error.strerror}. Name a folder that you may write with --store "
            "(for folds and locks: FOLDFLEET_CACHE)."
        )
    if error.errno in (errno.ENOTDIR, errno.ENOENT, errno.EEXIST):
        return AccessError(f"{path} cannot be made: {error.strerror}. Name another folder with --store.")
    return error


def _told(needed_bytes: int) -> str:
    return f"{needed_bytes} bytes are needed, " if needed_bytes else ""


def free_bytes(path: Path) -> int:
    """Return the bytes free for us on the file system of the nearest existing parent of ``path``."""
    while not path.exists() and path != path.parent:
        path = path.parent
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize
