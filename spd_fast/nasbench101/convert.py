"""Conversion of an official NAS-Bench-101 file to a table. TFRecord, protobuf and checksums are read without TensorFlow."""

import json
import os
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from spd_fast._core import nasbench as _native
from spd_fast._core import version
from spd_fast.base.files import save_mappable
from spd_fast.base.types import Progress
from spd_fast.nasbench101.table import CELL_COLUMNS, METRIC_COLUMNS, SCHEMA, Table, open_table

__all__ = ["convert"]

_PIECE = 1 << 24
_GZIP = b"\x1f\x8b"


def convert(
    tfrecord: str | os.PathLike[str] | IO[bytes],
    out: str | os.PathLike[str],
    *,
    strict: bool = True,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Table:
    """Read an official NAS-Bench-101 file and write it as a table.

    Both checksums of every record are compared. The file is read in pieces, so memory holds the table and one piece. `out` is
    replaced at the end, as a whole: if the conversion fails or is killed, `out` is what it was before.

    Parameters
    ----------
    tfrecord : path or binary file object
        ``nasbench_only108.tfrecord``, ``nasbench_full.tfrecord`` or a file like them, gzipped or not.
    out : path
        The table to write, by convention ``.npz``.
    strict : bool
        Whether the conversion stops at the first record that cannot be read. Otherwise such records are left out, the table's
        `provenance` says how many they are, and a warning says so, too.
    threads : int, optional
        Default: the processors there are. Does not change the result.
    progress : callable, optional
        It is called with the share of the file that is read, 0 to 1, if the length of the file is known.

    Returns
    -------
    Table
        The new table, opened.

    Raises
    ------
    ValueError
        If the file is not a NAS-Bench-101 file or is damaged; the message says which record is the first bad one, and where
        in the file it is.
    TypeError
        If `tfrecord` is a file object in text mode.
    OSError
        If a file cannot be read or written.

    Warns
    -----
    UserWarning
        If records were left out, if records have fields that the official schema does not have, or if the middle evaluation
        of a record was not taken after half of the training.
    """
    target = Path(out)
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder, expected the name of a table to write")
    if isinstance(tfrecord, str | os.PathLike):
        name = os.fspath(tfrecord)
        if target.exists() and target.samefile(tfrecord):
            raise ValueError(
                f"{name} is both the file to read and the table to write: choose another name for the table"
            )
        with Path(tfrecord).open("rb") as file:
            builder = _read(file, name, strict, threads, progress)
    else:
        given = getattr(tfrecord, "name", None)
        name = given if isinstance(given, str) else "the file object"
        builder = _read(tfrecord, name, strict, threads, progress)
    remarks = _remarks(builder)
    provenance = {
        "source": Path(name).name,
        "records": builder.records,
        **remarks,
        "converted_by": f"spd_fast {version}",
    }
    save_mappable(target, _arrays(builder, provenance))
    for remark in remarks.values():
        warnings.warn(f"{name}: {remark}", stacklevel=2)
    return open_table(target)


def _read(
    file: IO[bytes], name: str, strict: bool, threads: int | None, progress: Progress | None
) -> _native.TableBuilder:
    builder = _native.TableBuilder(strict)
    try:
        for piece in _pieces(file, progress):
            builder.add(piece, threads or 0)
        builder.finish(threads or 0)
    except (_native.Malformed, EOFError) as error:
        raise ValueError(f"{name}: {error}") from None
    except zlib.error as error:
        raise ValueError(f"{name} is damaged gzip data: {error}") from None
    return builder


def _pieces(file: IO[bytes], progress: Progress | None) -> Iterator[bytes]:
    """Yield the content of a file in pieces of bounded size; gzipped content is decompressed."""
    raw = _raw_pieces(file, progress)
    first = next(raw, b"")
    if first.startswith(_GZIP):
        yield from _inflated(first, raw)
    elif first:
        yield first
        yield from raw


def _raw_pieces(file: IO[bytes], progress: Progress | None) -> Iterator[bytes]:
    try:
        size = os.fstat(file.fileno()).st_size
    except (AttributeError, OSError):
        size = 0
    done = 0
    while piece := file.read(_PIECE):
        if not isinstance(piece, bytes):
            raise TypeError(f"tfrecord gives {type(piece).__name__}, expected bytes: open it in binary mode")
        yield piece
        done += len(piece)
        if progress is not None and size:
            progress(min(1.0, done / size))


def _inflated(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the decompressed content of gzip members, one piece at a time, because a small file may hold terabytes."""
    stream = zlib.decompressobj(wbits=31)
    data = first
    while data:
        if piece := stream.decompress(data, _PIECE):
            yield piece
        if stream.eof:
            data = stream.unused_data or next(rest, b"")
            stream = zlib.decompressobj(wbits=31) if data else stream
        else:
            data = stream.unconsumed_tail or next(rest, b"")
    if not stream.eof:
        raise EOFError("the gzip data ends early: the file was cut short")


def _remarks(builder: _native.TableBuilder) -> dict[str, str]:
    remarks = {}
    if builder.faults:
        remarks["passed_over"] = f"{builder.faults} places could not be read; the first: {builder.first_fault}"
    if builder.extended:
        remarks["extended_schema"] = (
            f"{builder.extended} of {builder.records} records have fields that the official schema does not have, or official "
            "fields of another type, so they are not records of NAS-Bench-101 itself (EC-NAS-Bench's files with energy "
            "measurements have such fields); the official fields were read"
        )
    if builder.off_half:
        remarks["halfway"] = (
            f"the middle evaluation of {builder.off_half} of {builder.records} records was not taken after half of the "
            "training: their halfway columns hold it nevertheless"
        )
    return remarks


def _arrays(builder: _native.TableBuilder, provenance: dict[str, Any]) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    yield "schema", np.array(SCHEMA)
    columns = builder.columns()
    yield from ((name, getattr(columns, name)) for name in CELL_COLUMNS)
    budgets, runs = builder.budgets(), builder.runs()
    yield "budgets", np.array(budgets, np.int32)
    for m, name in enumerate(METRIC_COLUMNS):
        yield name, np.stack([[builder.column(m, b, run) for run in range(runs)] for b in range(len(budgets))])
    yield "provenance", np.frombuffer(json.dumps(provenance).encode(), dtype=np.uint8)
