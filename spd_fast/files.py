"""Reading and writing files so that nothing half-written is left behind and no pickle is ever loaded."""

import io
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

__all__ = ["atomic_write", "load_arrays", "save_arrays"]


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
        if array.dtype.hasobject:
            raise TypeError(f"array {name!r} has dtype {array.dtype}, expected numbers: objects would need pickles")
    with atomic_write(path) as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


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
