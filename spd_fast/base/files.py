"""Reading and writing files. No half-written file is left behind, damage is noticed, and no pickle is ever loaded.

An archive that is written here is an ordinary .npz whose zip comment lists its members. The list is a JSON object with a checksum,
``{"format": "spd_fast.archive/1", "members": {name: [dtype, shape, CRC-32], ...}, "crc32": ...}``. When an archive is read, its list
is compared with its directory, and the checksums with its contents. Archives of other programs have no list, and are read without
one.
"""

import errno
import fcntl
import io
import json
import lzma
import math
import mmap
import os
import re
import secrets
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from spd_fast.base.types import Array

__all__ = [
    "MappedArchive",
    "atomic_write",
    "is_leftover",
    "is_locked",
    "load_arrays",
    "lock_file",
    "map_arrays",
    "other_kind",
    "release",
    "remove_leftovers",
    "require_writable",
    "save_arrays",
    "save_mappable",
    "sealed",
    "unsealed",
    "what_is",
]

_FORMAT: Final = "spd_fast.archive/1"
_LONGEST_LIST: Final = 65_535  # the most bytes that a zip comment can have
_ALIGNMENT: Final = 64
_PADDING_FIELD: Final = 0xD935  # the extra field with which Android's zipalign pads local headers
_LOCAL_HEADER: Final = struct.Struct("<4s22xHH")  # magic, lengths of name and extra field
_END: Final = struct.Struct("<4s16xH")  # magic, length of the comment
_LONGEST_HEADER: Final = 1 << 14  # more bytes than numpy allows in an array's header
_UNREADABLE: Final = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
)
"""The exceptions that reading a damaged archive may raise."""


# ---- files


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a file for writing that replaces `path` when the block ends without an error.

    The bytes are written to a file beside it with a temporary name, flushed to the disk, and renamed to `path`. A reader sees the
    old file or the new one, and a kill at any moment leaves `path` as it was. Temporary files that killed processes left of
    `path` are removed.

    Raises
    ------
    OSError
        As `require_writable`, or if the disk is full.
    """
    target = Path(path)
    require_writable(target)
    remove_leftovers(target.parent, target.name)
    partial, file = _open_partial(target)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _open_partial(target: Path) -> tuple[Path, IO[bytes]]:
    """Create and lock the temporary file of a target. The lock shows other processes that its writer lives."""
    while True:
        partial = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
        try:
            file = open(partial, "xb")  # noqa: SIM115 - the caller closes it
        except OSError as error:
            raise OSError(
                error.errno, error.strerror, str(target)
            ) from None  # not the temporary name, which nobody gave
        with suppress(OSError):  # on a disk without locks, temporary files of killed processes stay
            fcntl.flock(file, fcntl.LOCK_EX)
        if _is_at(file.fileno(), partial):
            return partial, file
        file.close()  # another process removed it before it was locked


def require_writable(path: str | os.PathLike[str]) -> None:
    """Refuse the name of a file that cannot be written. Long work calls this before it begins.

    Raises
    ------
    OSError
        If the name is that of a folder, or its folder does not exist or cannot be written to.
    """
    target = Path(path)
    folder = target.absolute().parent
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder, expected the name of a file to write")
    if not folder.exists():
        raise FileNotFoundError(
            f"{target} cannot be written: {os.strerror(errno.ENOENT)}: the folder {folder} does not exist; make it first"
        )
    if not folder.is_dir():
        raise NotADirectoryError(f"{target} cannot be written: {folder} is a file, expected a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{target} cannot be written: the folder {folder} may not be written to")


def remove_leftovers(folder: str | os.PathLike[str], name: str | None = None) -> None:
    """Remove the temporary files that killed processes left in a folder: those of one target, or all of them.

    A temporary file stays if its writer lives, on this machine or on another one that shares the folder, because the writer
    holds a lock on it.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        for path in [entry.path for entry in entries if is_leftover(entry.name, name)]:
            with suppress(OSError), open(path, "r+b") as file:  # its writer lives, or this process may not write it
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(path)


def is_leftover(found: str, name: str | None = None) -> bool:
    """Return whether a name is that of a temporary file: of one target, or of any."""
    of = ".+" if name is None else re.escape(name)
    return re.fullmatch(rf"\.{of}\.\d+(-[0-9a-f]+)?\.partial", found) is not None


def lock_file(path: str | os.PathLike[str]) -> int:
    """Open and lock a file for reading and appending. It is created if it does not exist.

    Returns
    -------
    int
        The file's descriptor. The lock ends with `release`, or when the process dies.

    Raises
    ------
    BlockingIOError
        If another process holds the lock, on this machine or on another one.
    OSError
        If the file cannot be opened.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
        if _is_at(descriptor, path):
            return descriptor
        os.close(descriptor)  # the process that held the lock before removed the file


def release(descriptor: int) -> None:
    """Close a file that `lock_file` opened, and end its lock even if a forked process has the file open."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def is_locked(path: str | os.PathLike[str]) -> bool:
    """Return whether a process holds the lock of a file, without changing the file.

    It is asked for by a lock that is shared and released at once: a process that takes its lock in just that moment would be refused.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _is_at(descriptor: int, path: str | os.PathLike[str]) -> bool:
    """Return whether an open file is the one at a path."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


# ---- JSON with a checksum


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with one more member, ``crc32``, which is a checksum of the other members as text.

    Raises
    ------
    ValueError
        If the record holds NaN or infinity, which JSON does not have.
    """
    return {**record, "crc32": f"{zlib.crc32(_compact(record)):08x}"}


def unsealed(text: str | bytes) -> dict[str, Any]:
    """Read a record that `sealed` returned from its JSON, and compare its checksum.

    Raises
    ------
    ValueError
        If the text is not JSON, has no checksum, or was changed.
    """
    record = json.loads(text)
    if not isinstance(record, dict) or "crc32" not in record:
        raise ValueError("there is no checksum, expected an object with crc32")
    found = record.pop("crc32")
    if found != (expected := f"{zlib.crc32(_compact(record)):08x}"):
        raise ValueError(f"crc32 is {found!r}, expected {expected!r} for this content: it was changed")
    return record


def _compact(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, allow_nan=False, separators=(",", ":")).encode()


# ---- archives


def save_arrays(path: str | os.PathLike[str], arrays: Mapping[str, Array]) -> None:
    """Write arrays to a compressed .npz file without pickles, with a list of its members: the whole file or none.

    Equal arrays give equal bytes.

    Raises
    ------
    TypeError
        If an array holds Python objects.
    ValueError
        If there are more arrays than the list can hold, which is several hundred.
    OSError
        As `atomic_write`.
    """
    _write_archive(path, arrays.items(), mappable=False)


def save_mappable(path: str | os.PathLike[str], arrays: Iterable[tuple[str, Array]]) -> None:
    """Write arrays to an uncompressed .npz file, which `map_arrays` maps into memory, with a list of its members: the whole file
    or none.

    Other programs can read it as any .npz. Members lie on boundaries of 64 bytes. Arrays are taken one by one, so that a
    generator need not hold all of them. Equal arrays give equal bytes.

    Raises
    ------
    TypeError, ValueError, OSError
        As `save_arrays`.
    """
    _write_archive(path, arrays, mappable=True)


def _write_archive(path: str | os.PathLike[str], arrays: Iterable[tuple[str, Array]], *, mappable: bool) -> None:
    members: dict[str, Any] = {}
    with atomic_write(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays:
            if array.dtype.hasobject:
                raise TypeError(f"array {name!r} has dtype {array.dtype}, expected numbers: objects would need pickles")
            member = zipfile.ZipInfo(f"{name}.npy")
            if mappable:
                header = _LOCAL_HEADER.size + len(member.filename.encode()) + 4
                padding = -(file.tell() + header) % _ALIGNMENT
                member.extra = struct.pack("<HH", _PADDING_FIELD, padding) + bytes(padding)
                array = np.ascontiguousarray(array).reshape(array.shape)
            else:
                member.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(member, "w", force_zip64=not mappable) as opened:
                np.lib.format.write_array(opened, array, allow_pickle=False)
            members[name] = _entry(array, member)
        comment = _compact(sealed({"format": _FORMAT, "members": members}))
        if len(comment) > _LONGEST_LIST:
            raise ValueError(f"{len(members)} arrays are too many for one archive: their list has {len(comment)} bytes")
        archive.comment = comment


def _entry(array: Array, member: zipfile.ZipInfo) -> list[Any]:
    """Return the entry of a member in the list of its archive."""
    return [array.dtype.str, list(array.shape), f"{member.CRC:08x}"]


def load_arrays(path: str | os.PathLike[str], *, what: str, listed: bool = False) -> dict[str, Array]:
    """Read every array of an .npz file without unpickling, and compare every checksum.

    Parameters
    ----------
    path : path
    what : str
        What the file should be, for messages, such as ``"truth file"``.
    listed : bool
        Whether the file must have the list that `save_arrays` writes. Files of other programs have none.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not an .npz, is damaged or cut short, holds anything but plain arrays, or holds other arrays than it
        lists.
    OSError
        If the file cannot be read.
    """
    source = Path(path)
    if not source.exists():
        raise FileNotFoundError(f"{what} {source} does not exist")
    content = source.read_bytes()
    if not zipfile.is_zipfile(io.BytesIO(content)):
        raise ValueError(f"{what} {source} is not an .npz file, or was cut short{other_kind(source, what)}")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [(info, _array(info.filename, archive.read(info)).copy(order="K")) for info in archive.infolist()]
            has_list = _check_list(archive, content, members)
    except _UNREADABLE as error:
        raise ValueError(
            f"{what} {source} is damaged or holds more than plain arrays: {error}{other_kind(source, what)}"
        ) from error
    if listed and not has_list:
        raise ValueError(
            f"{what} {source} does not list its arrays: another program or an earlier version wrote it; make it anew"
            f"{other_kind(source, what)}"
        )
    return {_name(info): array for info, array in members}


class MappedArchive(Mapping[str, Array]):
    """The arrays of an .npz by name, read-only and mapped into memory. `map_arrays` returns one.

    Attributes
    ----------
    listed : bool
        Whether the archive has a list of its members, so that names, dtypes and shapes are certainly those that were written.
    """

    def __init__(self, called: str, members: Mapping[str, tuple[Array, memoryview, int]], listed: bool) -> None:
        self._called, self._members, self.listed = called, members, listed

    def __getitem__(self, name: str) -> Array:
        return self._members[name][0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def require_intact(self, names: Iterable[str]) -> None:
        """Read the contents of some arrays and compare their checksums.

        Raises
        ------
        ValueError
            If an array is not the one that was written.
        """
        for name in names:
            _, content, checksum = self._members[name]
            if (found := zlib.crc32(content)) != checksum:
                raise ValueError(
                    f"{self._called} is damaged: {name} has checksum {found:08x}, expected {checksum:08x}; copy or make it anew"
                )


def map_arrays(path: str | os.PathLike[str], *, what: str) -> MappedArchive:
    """Map the arrays of an uncompressed .npz file into memory, read-only. They are read from the disk when they are touched.

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
        If the file is not an .npz, is cut short, holds compressed members or anything but plain arrays, or holds arrays of other
        names, dtypes or shapes than it lists. Checksums of contents are not compared, because that would read the whole file;
        `MappedArchive.require_intact` compares them.
    OSError
        If the file cannot be read.
    """
    source = Path(path)
    if not source.exists():
        raise FileNotFoundError(f"{what} {source} does not exist")
    with open(source, "rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError(f"{what} {source} is not an .npz file, or was cut short{other_kind(source, what)}")
        try:
            with zipfile.ZipFile(file) as archive:
                content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
                parts = [_part(content, info) for info in archive.infolist()]
                members = [
                    (info, _array(info.filename, part)) for info, part in zip(archive.infolist(), parts, strict=True)
                ]
                listed = _check_list(archive, content, members)
        except _UNREADABLE as error:
            raise ValueError(
                f"{what} {source} is damaged or cannot be mapped: {error}{other_kind(source, what)}"
            ) from error
    return MappedArchive(
        f"{what} {source}",
        {_name(info): (array, part, info.CRC) for (info, array), part in zip(members, parts, strict=True)},
        listed,
    )


def _name(info: zipfile.ZipInfo) -> str:
    return info.filename.removesuffix(".npy")


def _part(content: memoryview, info: zipfile.ZipInfo) -> memoryview:
    """Return the bytes of an uncompressed member."""
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{_name(info)} is compressed")
    magic, name_length, extra_length = _LOCAL_HEADER.unpack_from(content, info.header_offset)
    name = info.header_offset + _LOCAL_HEADER.size
    start = name + name_length + extra_length
    if magic != b"PK\3\4" or content[name : name + name_length] != info.orig_filename.encode():
        raise ValueError(f"{_name(info)} is not where the archive's directory says")
    return content[start : start + info.file_size]


def _array(filename: str, content: bytes | memoryview) -> Array:
    """Return the array that a member holds, as a view of its bytes."""
    name = filename.removesuffix(".npy")
    if name == filename:
        raise ValueError(f"{filename!r} is not an array: expected an .npz of arrays")
    header = io.BytesIO(content[:_LONGEST_HEADER])
    try:
        version = np.lib.format.read_magic(header)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        with warnings.catch_warnings(action="ignore"):  # numpy warns of headers that look like those of Python 2
            shape, fortran, dtype = read(header)
    except KeyError:
        raise ValueError(f"{name} is not an array of format 1.0 or 2.0") from None
    except (ValueError, TypeError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError) as error:
        raise ValueError(f"{name} has a header that cannot be read: {error}") from None
    if dtype.hasobject:
        raise ValueError(f"{name} holds Python objects, expected numbers")
    begin, count = header.tell(), math.prod(shape)
    if min(shape, default=0) < 0 or begin + count * dtype.itemsize != len(content):
        raise ValueError(f"{name} has another length than its header says")
    array: Array = np.frombuffer(content, dtype, count, begin)
    return array.reshape(shape[::-1]).T if fortran else array.reshape(shape)


def _check_list(
    archive: zipfile.ZipFile, content: bytes | memoryview, members: list[tuple[zipfile.ZipInfo, Array]]
) -> bool:
    """Compare the members of an archive with its list; return whether it has a list."""
    end = len(content) - len(archive.comment) - _END.size  # where the directory ends
    if _END.unpack_from(content, end) != (b"PK\5\6", len(archive.comment)):
        raise ValueError("the archive does not end where its directory says")
    if not archive.comment:
        return False
    try:
        listed = unsealed(archive.comment)["members"]
    except (ValueError, KeyError) as error:
        raise ValueError(f"the list of its arrays cannot be read: {error}") from None
    found = [(_name(info), _entry(array, info)) for info, array in members]
    if found != list(listed.items()):
        odd = sorted(
            {name for name, entry in found if listed.get(name) != entry} | (listed.keys() - dict(found).keys())
        )
        raise ValueError(f"it holds other arrays than it lists: {', '.join(odd) or 'in another order'}")
    return True


# ---- files of other kinds


@dataclass(frozen=True)
class Kind:
    """A kind of file: what it is and what reads it, and how it is described where it is expected; for messages."""

    described: str
    reader: str = ""
    expected: str = ""

    def __str__(self) -> str:
        return f"{self.described}, which {self.reader} reads" if self.reader else self.described


_OWN: Final = {
    "truth file": Kind(
        "a truth file",
        "spd_fast.TruthTable.load",
        "a file that spd_fast.truth.table.write_truth or spd-fast truth build wrote",
    ),
    "table": Kind(
        "a table of NAS-Bench-101", "spd_fast.nasbench101.open", "a table that spd_fast.nasbench101.convert wrote"
    ),
    "predictor file": Kind("a predictor", "spd_fast.SPDPredictor.load", "a file that spd_fast.SPDPredictor.save wrote"),
    "supernet file": Kind("a supernet", "spd_fast.supernet.Supernet.load", "a file that spd-fast supernet train wrote"),
    "checkpoint": Kind("the checkpoint of a run", "spd-fast run --resume"),
    "dish file": Kind(
        "a file of images and labels",
        "spd_fast.Dish.load or spd_fast.images.load_images",
        "a file that spd_fast.Dish.save wrote, or an .npz of images and labels",
    ),
    "image file": Kind(
        "an image set", "spd_fast.images.load_images", "an .npz of images and labels, or a folder of IDX files"
    ),
    "cell file": Kind(
        "a file of columns of cells",
        "spd_fast.spaces.cell_files.read_cells",
        "JSON or an .npz of cells, as spd-fast nasbench sample and enumerate write them",
    ),
    "NAS-Bench-101 file": Kind(
        "a TFRecord file", "spd_fast.nasbench101.convert", "a TFRecord file such as nasbench_only108.tfrecord"
    ),
    "NATS-Bench file": Kind(
        "bz2-compressed data",
        "spd_fast.natsbench (if it is of that benchmark)",
        "a file such as 000011.pickle.pbz2 or meta.pickle.pbz2",
    ),
}
"""The kinds of files that the package reads, by the name that `load_arrays` and others have for them in messages."""
_BY_SCHEMA: Final = {
    "spd_fast.truth/": "truth file",
    "spd_fast.nasbench101/": "table",
    "spd_fast.supernet/": "supernet file",
}
_MAGIC: Final = {
    b"\x93NUMPY": Kind("a single array (.npy)", "numpy.load"),
    b"\x89HDF": Kind("an HDF5 file", "h5py"),
    b"PAR1": Kind("a Parquet file", "spd_fast.rank"),
    b"ARROW1": Kind("an Arrow file", "pyarrow"),
    b"\x89PNG": Kind("a picture (PNG)"),
    b"\xff\xd8\xff": Kind("a picture (JPEG)"),
    b"%PDF": Kind("a PDF"),
    b"\xfd7zXZ": Kind("xz-compressed data: decompress it first"),
    b"\x28\xb5\x2f\xfd": Kind("zstd-compressed data: decompress it first"),
    b"version https://git-lfs": Kind("a pointer of Git LFS, whose file was not downloaded: git lfs pull gets it"),
}
_HEAD: Final = 1 << 16  # bytes by which a file is recognised
_IDX: Final = Kind("an IDX file, as MNIST has them", "spd_fast.images.load_images (of their folder)")
_IDX_TYPES: Final = (8, 9, 11, 12, 13, 14)


def what_is(path: str | os.PathLike[str]) -> Kind:
    """Return what kind of file a file is, judging by its content and not by its name.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    with open(path, "rb") as file:
        head = file.read(_HEAD)
        if head[:2] == b"PK":
            return _kind_of_archive(file)
    if head[:2] == b"\x1f\x8b":
        return _kind_of_gzip(head)
    if head[:3] == b"BZh":
        return _OWN["NATS-Bench file"]
    return _kind_of_bytes(head)


def other_kind(path: str | os.PathLike[str], expected: str) -> str:
    """Return the end of an error's sentence, which says what a file is and what was expected; nothing if the file is of the
    expected kind.

    Parameters
    ----------
    path : path
    expected : str
        What the file should be: a key of the kinds that the package reads, such as ``"truth file"``; or the beginning of a
        description, such as ``"a JSON file"``.
    """
    wanted = _OWN.get(expected)
    try:
        found = what_is(path)
    except OSError:
        return ""
    if found is wanted or found.described.startswith(expected):
        return ""
    return f"; it is {found}" + (f"; expected {wanted.expected}" if wanted and wanted.expected else "")


def _kind_of_archive(file: IO[bytes]) -> Kind:
    """Return the kind of a zip archive."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = {_name(info) for info in archive.infolist()}
            if not all(info.filename.endswith(".npy") for info in archive.infolist()):
                return Kind(
                    "a PyTorch file"
                    if any(name.endswith("data.pkl") for name in names)
                    else "a zip archive of no arrays",
                    "torch.load" if any(name.endswith("data.pkl") for name in names) else "",
                )
            schema = _schema_of(archive) if "schema" in names else ""
    except _UNREADABLE:
        return Kind("an .npz or zip file that is damaged or was cut short: copy or download it again")
    for start, known in _BY_SCHEMA.items():
        if schema.startswith(start):
            return _OWN[known]
    if "settings" in names:
        return _OWN["predictor file"]
    if "step" in names:
        return _OWN["checkpoint"]
    if {"images", "labels"} <= names:
        return _OWN["dish file"]
    if {"vertices", "edge_bits", "op_codes"} <= names:
        return _OWN["cell file"]
    return Kind(f"an .npz of the arrays {', '.join(sorted(names)[:8]) or '(none)'}", "numpy.load")


def _schema_of(archive: zipfile.ZipFile) -> str:
    with archive.open("schema.npy") as member:
        return str(_array("schema.npy", member.read(_LONGEST_HEADER)))


def _kind_of_gzip(head: bytes) -> Kind:
    try:
        inside = zlib.decompressobj(wbits=31).decompress(head, _HEAD)
    except zlib.error:
        return Kind("gzip data that is damaged: copy or download it again")
    kind = _kind_of_bytes(inside)
    if kind is _OWN["NAS-Bench-101 file"] or kind is _IDX:
        return kind  # these are read gzipped or not
    if kind.described.endswith(" table"):
        return Kind(f"{kind.described}, gzipped", kind.reader)
    return Kind(f"{kind.described}, gzipped: decompress it first")


def _kind_of_bytes(head: bytes) -> Kind:
    """Return the kind of a file that begins with these bytes."""
    if not head:
        return Kind("an empty file")
    if not head.strip(b"\0"):
        return Kind("a file of zeros: its download or copy was not completed")
    known = next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)
    if known is not None:
        return known
    if len(head) > 12 and _is_length(head[:12]):
        return _OWN["NAS-Bench-101 file"]
    if head[:2] == b"\0\0" and len(head) > 3 and head[2] in _IDX_TYPES and 1 <= head[3] <= 4:
        return _IDX
    if head[0] == 0x80 and head[1:2] <= b"\5":
        return Kind("a pickle, which is never loaded because it can run code")
    if head[257:262] == b"ustar":
        return Kind("a tar archive: unpack it first")
    return _kind_of_text(head)


def _is_length(head: bytes) -> bool:
    """Return whether a TFRecord file may begin so: with a length of eight bytes and its masked CRC-32C."""
    crc = 0xFFFFFFFF
    for byte in head[:8]:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return int.from_bytes(head[8:12], "little") == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _kind_of_text(head: bytes) -> Kind:
    try:
        text = head.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        if len(head) < _HEAD or error.start < len(head) - 4:  # it is not that a character was cut at the end
            return Kind("a file of an unknown kind")
        text = head[: error.start].decode("utf-8-sig").strip()
    if "\0" in text:
        return Kind("a file of an unknown kind")
    lines = text.splitlines() or [""]
    if text[:1] == "<":
        return Kind("a web page or XML: perhaps a download that needs a login")
    if text[:1] in ("{", "["):
        return _kind_of_json(text, lines[0])
    for separator, name in ((",", "CSV"), ("\t", "TSV")):
        if separator in lines[0]:
            return Kind(f"a {name} table", "spd_fast.rank (spd-fast rank) or spd-fast truth import")
    return Kind("a text")


def _kind_of_json(text: str, line: str) -> Kind:
    schema = re.search(r'"schema": ?"spd_fast\.(\w+)/', text[:400])
    if schema is not None and schema[1] == "recipe":
        return Kind("a recipe", "--recipe (spd_fast.Recipe.from_json)")
    if schema is not None:
        return Kind("a record that spd_fast keeps in its own folders")
    of_lines = line.rstrip().endswith("}") and line.strip() != text
    readers = "spd_fast.rank (spd-fast rank)" + ("" if of_lines else " or spd_fast.spaces.cell_files.read_cells")
    return Kind("a file of JSON lines" if of_lines else "a JSON file", f"{readers}, if it holds cells,")
