"""Reading and writing files so that nothing half-written is left behind and no pickle is ever loaded."""

import io
import mmap
import os
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

__all__ = ["atomic_write", "load_arrays", "map_arrays", "save_arrays", "save_mappable"]

_ALIGNMENT = 64
_PADDING_FIELD = 0xD935  # the extra field by which zipalign of Android pads local headers


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a file for writing that takes the place of `path` only when the block ends without an error.

    The bytes go to a sibling with a temporary name, are flushed to the disk and then renamed over `path`: a reader sees
    the old file or the new one, and a kill at any moment leaves `path` as it was.

    Raises
    ------
    OSError
        If the folder does not exist or cannot be written to, or the disk is full.
    """
    target = Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def save_arrays(path: str | os.PathLike[str], arrays: dict[str, npt.NDArray[Any]]) -> None:
    """Write arrays to a compressed .npz file, atomically and without pickles.

    Equal arrays give equal bytes.

    Raises
    ------
    TypeError
        If an array holds Python objects.
    OSError
        As `atomic_write`.
    """
    for name, array in arrays.items():
        _require_plain(name, array)
    with atomic_write(path) as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def _require_plain(name: str, array: npt.NDArray[Any]) -> None:
    if array.dtype.hasobject:
        raise TypeError(f"array {name!r} has dtype {array.dtype}, expected numbers: objects would need pickles")


def load_arrays(path: str | os.PathLike[str], *, what: str) -> dict[str, npt.NDArray[Any]]:
    """Read every array of an .npz file, never unpickling.

    Parameters
    ----------
    path : path
    what : str
        What the file should be, for messages: ``"truth file"``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not an .npz, is damaged or cut short, or holds pickled objects.
    OSError
        If the file cannot be read.
    """
    source = Path(path)
    if not source.exists():
        raise FileNotFoundError(f"{what} {source} does not exist")
    archive = io.BytesIO(source.read_bytes())
    if not zipfile.is_zipfile(archive):
        raise ValueError(f"{what} {source} is not an .npz file, or was cut short")
    archive.seek(0)
    try:
        with np.load(archive, allow_pickle=False) as members:
            arrays = {name: members[name] for name in members.files}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"{what} {source} is damaged or holds more than plain arrays: {error}") from error
    foreign = [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]
    if foreign:
        raise ValueError(f"{what} {source} holds {foreign[0]!r}, which is not an array: expected an .npz of arrays")
    return arrays


def save_mappable(path: str | os.PathLike[str], arrays: Iterable[tuple[str, npt.NDArray[Any]]]) -> None:
    """Write arrays to an uncompressed .npz file that `map_arrays` maps into memory, atomically.

    It is an ordinary .npz for everyone else. Members lie on boundaries of 64 bytes and carry the CRC-32 that zip files
    have. Arrays are taken one by one, so a generator need not hold them all. Equal arrays give equal bytes.

    Raises
    ------
    TypeError
        If an array holds Python objects.
    OSError
        As `atomic_write`.
    """
    with atomic_write(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays:
            _require_plain(name, array)
            member = zipfile.ZipInfo(f"{name}.npy")
            padding = (
                -(file.tell() + 30 + len(member.filename) + 4) % _ALIGNMENT
            )  # 30: a local header without its names
            member.extra = struct.pack("<HH", _PADDING_FIELD, padding) + bytes(padding)
            with archive.open(member, "w") as opened:
                np.lib.format.write_array(opened, np.ascontiguousarray(array).reshape(array.shape), allow_pickle=False)


def map_arrays(path: str | os.PathLike[str], *, what: str) -> dict[str, npt.NDArray[Any]]:
    """Map the arrays of an uncompressed .npz file into memory: read-only, and read from the disk when touched.

    Parameters
    ----------
    path : path
    what : str
        What the file should be, for messages.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not an .npz, is cut short, or holds compressed members or anything but plain arrays. Checksums are
        not compared: that would read the whole file.
    OSError
        If the file cannot be read.
    """
    source = Path(path)
    if not source.exists():
        raise FileNotFoundError(f"{what} {source} does not exist")
    with open(source, "rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError(f"{what} {source} is not an .npz file, or was cut short")
        try:
            with zipfile.ZipFile(file) as archive:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                return dict(_mapped_member(file, mapped, member) for member in archive.infolist())
        except (zipfile.BadZipFile, ValueError, struct.error) as error:
            raise ValueError(f"{what} {source} is damaged or cannot be mapped: {error}") from error


def _mapped_member(file: IO[bytes], mapped: mmap.mmap, member: zipfile.ZipInfo) -> tuple[str, npt.NDArray[Any]]:
    name = member.filename.removesuffix(".npy")
    if member.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed")
    file.seek(member.header_offset)
    name_length, extra_length = struct.unpack("<26xHH", file.read(30))
    start = member.header_offset + 30 + name_length + extra_length
    file.seek(start)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError(f"{name} is not an array of format 1.0")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    count = int(np.prod(shape, dtype=np.int64))
    begin = file.tell()
    if dtype.hasobject or fortran or begin + count * dtype.itemsize != start + member.file_size:
        raise ValueError(f"{name} holds more or less than the numbers that its header tells")
    return name, np.frombuffer(mapped, dtype, count, begin).reshape(shape)
