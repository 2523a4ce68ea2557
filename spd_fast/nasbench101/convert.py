"""Conversion of an official NAS-Bench-101 file to a table. TFRecord, protobuf and checksums are read without TensorFlow."""

import json
import os
import warnings
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from spd_fast._core import nasbench as _native
from spd_fast._core import version
from spd_fast.base.display import ShownProgress, shown_share
from spd_fast.base.files import other_kind, require_writable, save_mappable
from spd_fast.base.interrupts import stopped_with_main
from spd_fast.base.machine import thread_count
from spd_fast.base.types import Progress, checked_flag, checked_path, checked_shown_progress, shown
from spd_fast.nasbench101.table import CELL_COLUMNS, METRIC_COLUMNS, SCHEMA, Table, open_table, wrong_rows

__all__ = ["convert"]

_PIECE = 1 << 24
_GZIP = b"\x1f\x8b"
_STEP = 1 << 12  # bytes of damaged gzip data that are tried at once
_FRAME = 12, 4  # bytes before and behind a record's payload


def convert(
    tfrecord: str | os.PathLike[str] | IO[bytes],
    out: str | os.PathLike[str],
    *,
    strict: bool = True,
    threads: int | None = None,
    progress: ShownProgress = None,
) -> Table:
    """Read an official NAS-Bench-101 file and write it as a table.

    Both checksums of every record are compared, and so is every hash with its graph. The file is read in pieces, so memory holds
    the table and one piece. `out` is replaced at the end, as a whole: if the conversion fails or is killed, `out` is what it was before.

    Parameters
    ----------
    tfrecord : path or binary file object
        ``nasbench_only108.tfrecord``, ``nasbench_full.tfrecord`` or a file like them, gzipped or not.
    out : path
        The table to write, by convention ``.npz``.
    strict : bool
        Whether the conversion stops at the first record that cannot be read, or whose hash is not that of its graph. Otherwise
        such records are left out, and what precedes the end of a gzip file that was cut short is read; the table's
        `provenance` says so, and so does a warning.
    threads : int, optional
        Default: the processors there are. Does not change the result.
    progress : callable or bool, optional
        It is called with the share of the file that is read, 0 to 1, if the length of the file is known. Default: a bar, as
        `spd_fast.rank` shows it.

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
        If a file cannot be read or written. That `out` can be written is checked first.

    Warns
    -----
    UserWarning
        If records were left out, if records have fields that the official schema does not have, or if the middle evaluation
        of a record was not taken after half of the training.
    """
    target, strict = Path(checked_path("out", out)), checked_flag("strict", strict)
    if not isinstance(tfrecord, str | os.PathLike) and not hasattr(tfrecord, "read"):
        raise TypeError(f"tfrecord is {shown(tfrecord)}, expected a path or a file object that is open in binary mode")
    thread_count(threads)
    checked_shown_progress(progress)
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder, expected the name of a table to write")
    require_writable(target)
    notes: list[str] = []
    if isinstance(tfrecord, str | os.PathLike):
        name = os.fspath(tfrecord)
        if target.exists() and target.samefile(tfrecord):
            raise ValueError(
                f"{name} is both the file to read and the table to write: choose another name for the table"
            )
        with Path(tfrecord).open("rb") as file, shown_share(progress, "reading NAS-Bench-101") as report:
            try:
                builder, kept = _read(file, name, strict, threads, report, notes)
            except ValueError as error:
                raise ValueError(f"{error}{other_kind(tfrecord, 'NAS-Bench-101 file')}") from None
    else:
        given = getattr(tfrecord, "name", None)
        name = given if isinstance(given, str) else "the file object"
        with shown_share(progress, "reading NAS-Bench-101") as report:
            builder, kept = _read(tfrecord, name, strict, threads, report, notes)
    remarks = _remarks(builder, notes)
    provenance = {
        "source": Path(name).name,
        "records": builder.records if kept.all() else _count(builder, kept),
        **remarks,
        "converted_by": f"spd_fast {version}",
    }
    save_mappable(target, _arrays(builder, kept, provenance))
    for remark in remarks.values():
        warnings.warn(f"{name}: {remark}", stacklevel=2)
    return open_table(target)


def _read(
    file: IO[bytes], name: str, strict: bool, threads: int | None, progress: Progress | None, notes: list[str]
) -> tuple[_native.TableBuilder, npt.NDArray[np.bool_]]:
    """Return the records of a file as columns, and which of their rows are right. What was left out is added to `notes`."""
    builder = _native.TableBuilder(strict)
    try:
        begin = file.tell()
    except (AttributeError, OSError):
        begin = None  # a pipe
    try:
        for piece in _pieces(file, progress, None if strict else notes):
            builder.add(piece, thread_count(threads), stopped_with_main(None))
        builder.finish(thread_count(threads), stopped_with_main(None))
    except (_native.Malformed, EOFError) as error:
        raise ValueError(f"{name}: {error}") from None
    except zlib.error as error:
        raise ValueError(f"{name} is damaged gzip data: {error}") from None
    columns = builder.columns()
    wrong = wrong_rows(columns.vertices, columns.edge_bits, columns.op_codes, columns.module_hash, threads)
    if wrong.any():
        hashes = {row.tobytes().hex() for row in columns.module_hash[wrong]}
        first = min(hashes)
        if begin is not None:
            file.seek(begin)
            number, first = _first_record(_pieces(file, None, [] if not strict else None), hashes)
            first = f"{number}module_hash {first}"
        what = f"{first} is not the hash of its graph, or its graph is not pruned"
        if strict:
            raise ValueError(f"{name}: {what}")
        if wrong.all():
            raise ValueError(f"{name}: no record could be read; the first fault: {what}")
        notes.append(f"{wrong.sum()} cells were left out; the first: {what}")
    return builder, ~wrong


def _first_record(pieces: Iterable[bytes], hashes: set[str]) -> tuple[str, str]:
    """Return the place of the first record of one of these hashes, as the reader's messages name it, and the hash.

    The file was read before, so it is a file of records, but for damaged ones if the reading was not strict."""
    before, behind = _FRAME
    content, number, place = b"", 0, 0
    for piece in pieces:
        content += piece
        at = 0
        while len(content) >= at + before:
            end = at + before + int.from_bytes(content[at : at + 8], "little") + behind
            if end > len(content):
                break
            payload = content[at + before : end - behind]
            found = next((each for each in hashes if each.encode() in payload[:80]), None)
            if found is not None:
                return f"record {number}, counted from 0, at byte {place + at}: ", found
            number, at = number + 1, end
        content, place = content[at:], place + at
    return "", min(hashes)


def _count(builder: _native.TableBuilder, kept: npt.NDArray[np.bool_]) -> int:
    """Return the number of records of some rows."""
    columns = (builder.column(0, b, run) for b in range(len(builder.budgets())) for run in range(builder.runs()))
    return sum(int((~np.isnan(column[kept])).sum()) for column in columns)


def _pieces(file: IO[bytes], progress: Progress | None, notes: list[str] | None) -> Iterator[bytes]:
    """Yield the content of a file in pieces of bounded size; gzipped content is decompressed. With `notes`, gzip data may be
    damaged; then it is read up to the damage, which is noted."""
    raw = _raw_pieces(file, progress)
    first = next(raw, b"")
    while len(first) < len(_GZIP) and (more := next(raw, b"")):
        first += more
    if first.startswith(_GZIP):
        yield from _inflated(first, raw, notes)
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


def _inflated(first: bytes, rest: Iterator[bytes], notes: list[str] | None) -> Iterator[bytes]:
    """Yield the decompressed content of gzip members, one piece at a time, because a small file may hold terabytes. Zeros behind
    a member are padding, as for gzip itself."""
    stream = zlib.decompressobj(wbits=31)
    data = first
    while data:
        before = None if notes is None else stream.copy()
        try:
            piece = stream.decompress(data, _PIECE)
        except zlib.error as error:
            if notes is None or before is None:
                raise
            yield from _salvaged(before, data)
            notes.append(f"the gzip data is damaged: {error}; what precedes the damage was read")
            return
        if piece:
            yield piece
        if stream.eof:
            data = stream.unused_data.lstrip(b"\0")
            while not data and (more := next(rest, b"")):
                data = more.lstrip(b"\0")
            stream = zlib.decompressobj(wbits=31) if data else stream
        else:
            data = stream.unconsumed_tail or next(rest, b"")
    if not stream.eof:
        early = "the gzip data ends early: the file was cut short"
        if notes is None:
            raise EOFError(early)
        notes.append(early)


def _salvaged(stream: "zlib._Decompress", data: bytes) -> Iterator[bytes]:
    """Yield what damaged data holds before the damage."""
    at, step = 0, _STEP
    while at < len(data):
        before = stream.copy()
        try:
            if piece := stream.decompress(data[at : at + step]):
                yield piece
        except zlib.error:
            if step == 1:
                return
            stream, step = before, 1
        else:
            at += step


def _remarks(builder: _native.TableBuilder, notes: list[str]) -> dict[str, str]:
    remarks = {"left_out": "; ".join(notes)} if notes else {}
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


def _arrays(
    builder: _native.TableBuilder, kept: npt.NDArray[np.bool_], provenance: dict[str, Any]
) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    yield "schema", np.array(SCHEMA)
    columns = builder.columns()
    yield from ((name, getattr(columns, name)[kept]) for name in CELL_COLUMNS)
    budgets, runs = builder.budgets(), builder.runs()
    yield "budgets", np.array(budgets, np.int32)
    for m, name in enumerate(METRIC_COLUMNS):
        yield name, np.stack([[builder.column(m, b, run)[kept] for run in range(runs)] for b in range(len(budgets))])
    yield "provenance", np.frombuffer(json.dumps(provenance).encode(), dtype=np.uint8)
