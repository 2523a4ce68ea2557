"""Journals: the files by which work that was interrupted is continued.

Everything that can be continued (the outer loop, a dish-search, a scoreboard, the building of a truth) writes a `Journal`. Its first
line holds the identity of the work, which consists of settings and of digests of the data. Work is continued only with the same
identity. Every further line is a record of something that need not be done again.
"""

import base64
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from spd_fast.base.files import lock_file, release, sealed, unsealed

__all__ = [
    "Journal",
    "Measurements",
    "array_of",
    "content_digest",
    "read_identity",
    "read_journal",
    "read_schema",
    "text_of",
]

Record = dict[str, Any]


def content_digest(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """Return a digest of arrays and their names: 16 hexadecimal digits of a SHA-256."""
    digest = hashlib.sha256()
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]


class Journal:
    """An append-only file of JSON lines that belongs to one identity and survives a kill at any moment.

    Every line is a JSON object whose last member ``crc32`` is a checksum of the others. The first line holds schema and
    identity. An incomplete last line is removed when the journal is opened, because its writer died while it was written. The
    file of an open journal is locked.

    Parameters
    ----------
    path : path
        The file, which is created if it does not exist.
    schema : str
        The name and the version of the form of the records.
    remedy : str
        What to do if the journal cannot be continued, for messages, such as ``"choose another folder"``.

    Attributes
    ----------
    records : list of dict
        The records that were there when the journal was opened, without those that `keep` dropped.

    Raises
    ------
    BlockingIOError
        If another process has the journal open.
    ValueError
        If the file is not a journal, has another schema, or is damaged. The file is not changed.
    OSError
        If it cannot be read or written.
    """

    def __init__(self, path: str | os.PathLike[str], schema: str, *, remedy: str) -> None:
        self.path, self._schema, self._remedy = Path(path), schema, remedy
        try:
            self._file: int | None = lock_file(path)
        except BlockingIOError as error:
            raise BlockingIOError(
                error.errno, f"{path} is being written by another process: wait for it or stop it"
            ) from None
        try:
            self._identity, self.records, self._ends = _parsed(self.path, schema, remedy)
            self._cut()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        """The number of records in the file."""
        return len(self._ends) - 1

    def close(self) -> None:
        """Close the file, which releases its lock. Closing twice does nothing."""
        if self._file is not None:
            release(self._file)
        self._file = None

    def bind(self, identity: Mapping[str, Any]) -> None:
        """Give the journal an identity, or raise unless it is the journal's own. A journal without records accepts any identity.

        Parameters
        ----------
        identity : mapping that JSON can hold
            Its names should be known to users, because messages contain them.

        Raises
        ------
        ValueError
            If the journal has records of another identity; the message says what differs.
        OSError
            If it cannot be written.
        """
        wanted = json.loads(json.dumps(identity))
        if not len(self):
            self._ends = [0]
            self._cut()
            self._write([{"schema": self._schema, "identity": wanted}])
            self._ends = self._ends[1:]
            self.sync()
        elif self._identity != wanted:
            raise ValueError(
                f"{self.path} was begun with other settings ({_differences(self._identity, wanted)}): "
                f"use those to continue it, or {self._remedy}"
            )
        self._identity = wanted

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Write records: all of them, or none if that fails. They are certainly on the disk after `sync`.

        Raises
        ------
        ValueError
            If a record holds NaN or infinity, which JSON does not have.
        OSError
            If they cannot be written, for example because the disk is full.
        """
        self._write(records)

    def sync(self) -> None:
        """Make sure that all records are on the disk."""
        assert self._file is not None
        os.fsync(self._file)

    def keep(self, n: int) -> None:
        """Drop all records but the first `n`."""
        self.records, self._ends = self.records[:n], self._ends[: n + 1]
        self._cut()

    def delete(self) -> None:
        """Remove the file, because the work is done."""
        self.path.unlink()

    def _write(self, records: Iterable[Mapping[str, Any]]) -> None:
        assert self._file is not None
        lines = [json.dumps(sealed(record), separators=(",", ":")).encode() + b"\n" for record in records]
        content = b"".join(lines)
        try:
            written = 0
            while written < len(content):
                written += os.write(self._file, content[written:])
        except OSError:
            self._cut()
            raise
        for line in lines:
            self._ends.append(self._ends[-1] + len(line))

    def _cut(self) -> None:
        """Remove everything after the last record."""
        assert self._file is not None
        os.ftruncate(self._file, self._ends[-1])


class Measurements:
    """Measurements by name, each of which is named arrays, in a journal. It is used in a ``with`` block, which closes the journal.

    Parameters
    ----------
    path : path
        The file. What it holds already is not measured again.
    schema : str
    identity : mapping that JSON can hold
        All that the measurements depend on.
    remedy : str
        As in `Journal`.

    Raises
    ------
    BlockingIOError, ValueError, OSError
        As `Journal` and `Journal.bind`.
    """

    def __init__(self, path: str | os.PathLike[str], schema: str, identity: Mapping[str, Any], *, remedy: str) -> None:
        self._journal = Journal(path, schema, remedy=remedy)
        try:
            self._journal.bind(identity)
        except BaseException:
            self._journal.close()
            raise
        self._kept: dict[str, Record] = {record["name"]: record["arrays"] for record in self._journal.records}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._journal.close()

    def keep(self, name: str, measure: Callable[[], Mapping[str, npt.NDArray[Any]]]) -> dict[str, npt.NDArray[Any]]:
        """Return a measurement; make and keep it if it is not there yet."""
        if name not in self._kept:
            arrays = {
                each: {"dtype": array.dtype.str, "shape": array.shape, "content": text_of(array)}
                for each, array in measure().items()
            }
            self._journal.append([{"name": name, "arrays": arrays}])
            self._kept[name] = arrays
        return {
            each: array_of(kept["content"], kept["dtype"]).reshape(kept["shape"])
            for each, kept in self._kept[name].items()
        }


def text_of(array: npt.NDArray[Any]) -> str:
    """Return the content of an array as a text, which a record of a journal can hold."""
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def array_of(text: str, dtype: npt.DTypeLike = np.float64) -> npt.NDArray[Any]:
    """Return the array, with one axis, whose content `text_of` returned."""
    return np.frombuffer(base64.b64decode(text), dtype).copy()


def read_journal(path: str | os.PathLike[str], schema: str, *, remedy: str) -> list[Record]:
    """Return the records of a journal that another process may be writing.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError, OSError
        As `Journal`.
    """
    return _parsed(Path(path), schema, remedy)[1]


def read_identity(path: str | os.PathLike[str], schema: str, *, remedy: str) -> Record:
    """Return the identity of a journal that another process may be writing; it is empty while the first line is not whole.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError, OSError
        As `Journal`.
    """
    return _parsed(Path(path), schema, remedy)[0]


def read_schema(path: str | os.PathLike[str]) -> str | None:
    """Return the schema of a journal that another process may be writing; None if its first line is not that of a journal, or not whole.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    OSError
        If it cannot be read.
    """
    with Path(path).open("rb") as file:
        header = _record(file.readline())
    return None if header is None else header.get("schema")


def _parsed(path: Path, schema: str, remedy: str) -> tuple[Record, list[Record], list[int]]:
    """Return the identity, the records of the complete lines, and the positions in the file where the header and each record
    end."""
    found: list[Record] = []
    ends: list[int] = []
    *whole, tail = path.read_bytes().split(b"\n")
    for number, line in enumerate(whole, start=1):
        record = _record(line)
        if record is None and (number == 1 or any(_record(later) is not None for later in whole[number:])):
            raise ValueError(f"{path} is not a journal of {schema}, or is damaged in line {number}: {remedy}")
        if record is None:
            break
        found.append(record)
        ends.append((ends[-1] if ends else 0) + len(line) + 1)
    if not found:
        if not _is_torn_header(tail, schema):
            raise ValueError(f"{path} is not a journal of {schema}, or is damaged in line 1: {remedy}")
        return {}, [], [0]
    header, *records = found
    if header.get("schema") != schema:
        raise ValueError(
            f"{path} has schema {header.get('schema')!r}, expected {schema!r}: it is of another version; {remedy}"
        )
    return header["identity"], records, ends


def _record(line: bytes) -> Record | None:
    """Return the record of a line; None if the line is incomplete or was changed."""
    try:
        return unsealed(line)
    except ValueError:
        return None


def _is_torn_header(line: bytes, schema: str) -> bool:
    begin, written = json.dumps({"schema": schema}, separators=(",", ":"))[:-1].encode(), line.rstrip(b"\0")
    return written.startswith(begin) or begin.startswith(written)


def _differences(begun: Any, wanted: Any, name: str = "") -> str:
    """Return a text that says in which settings two identities differ."""
    if isinstance(begun, dict) and isinstance(wanted, dict):
        names = [each for each in {**wanted, **begun} if begun.get(each) != wanted.get(each)]
        return "; ".join(
            _differences(begun.get(each), wanted.get(each), f"{name}.{each}" if name else each) for each in names
        )
    return f"{name} is {wanted!r}, begun with {begun!r}"
