"""Files: whole or not at all, nothing left behind, and of archives that no damage passes unnoticed."""

import bz2
import fcntl
import gzip
import io
import json
import os
import pickle
import signal
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nasbench_files
from processes import Process, started
from spd_fast.base.files import (
    atomic_write,
    load_arrays,
    lock_file,
    map_arrays,
    other_kind,
    release,
    remove_leftovers,
    require_writable,
    save_arrays,
    save_mappable,
    sealed,
    unsealed,
    what_is,
)

ARRAYS: dict[str, Any] = {
    "images": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "labels": np.array([1, 0]),
    "rates": np.full(5, 0.5),
}


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return list(one) == list(other) and all(
        (one[name].dtype, one[name].shape, one[name].tobytes())
        == (other[name].dtype, other[name].shape, other[name].tobytes())
        for name in one
    )


def opened_and_verified(path: Path, *, what: str) -> Mapping[str, Any]:
    archive = map_arrays(path, what=what)
    archive.require_intact(archive)
    return archive


@pytest.fixture(params=["packed", "mapped"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Callable[..., Mapping[str, Any]]]:
    """A file of either kind and what reads all of it."""
    path = tmp_path / "arrays.npz"
    if request.param == "packed":
        save_arrays(path, ARRAYS)
        return path, load_arrays
    save_mappable(path, ARRAYS.items())
    return path, opened_and_verified


# ---- archives


def test_archives_of_anything(tmp_path: Path) -> None:
    odd = {"name": np.array("small"), "none": np.zeros((0, 3)), "many words.x": np.float32(3)}
    save_arrays(tmp_path / "a.npz", odd)
    assert same(load_arrays(tmp_path / "a.npz", what="file", listed=True), odd)
    save_mappable(tmp_path / "b.npz", odd.items())
    assert same(opened_and_verified(tmp_path / "b.npz", what="file"), odd)
    save_arrays(tmp_path / "c.npz", {})
    assert load_arrays(tmp_path / "c.npz", what="file", listed=True) == {}


def test_archives_read_back(archive: tuple[Path, Callable[..., Any]], tmp_path: Path) -> None:
    path, read = archive
    assert same(read(path, what="file"), ARRAYS)
    assert same(load_arrays(path, what="file", listed=True), ARRAYS)
    with np.load(path) as known:  # and by numpy alone, which sees nothing else in it
        assert same({name: known[name] for name in known.files}, ARRAYS)


def test_equal_arrays_give_equal_bytes(archive: tuple[Path, Callable[..., Any]]) -> None:
    path, _ = archive
    before = path.read_bytes()
    arrays = load_arrays(path, what="file")
    if zipfile.ZipFile(path).infolist()[0].compress_type:
        save_arrays(path, arrays)
    else:
        save_mappable(path, arrays.items())
    assert path.read_bytes() == before


def flips(content: bytes, begin: int, bits: Callable[[int], Iterator[int]]) -> Iterator[bytes]:
    for position in range(begin, len(content)):
        for bit in bits(position):
            flipped = bytearray(content)
            flipped[position] ^= 1 << bit
            yield bytes(flipped)


def is_refused(read: Callable[[], Mapping[str, Any]]) -> bool:
    """Whether a damaged file is refused, by its name; if not, all that was written is read."""
    try:
        assert same(read(), ARRAYS)
    except ValueError as error:
        if "arrays.npz" not in str(error):
            raise
        return True
    return False


def directory(content: bytes) -> int:
    end = content.rindex(b"PK\5\6")
    return int(struct.unpack_from("<I", content, end + 16)[0])


def test_every_bit_of_the_directory(archive: tuple[Path, Callable[..., Any]], tmp_path: Path) -> None:
    """What is read is what was written, or it is refused; numpy alone lost arrays in some of these."""
    path, read = archive
    whole = path.read_bytes()
    refused = total = 0
    for damaged in flips(whole, directory(whole), lambda _: iter(range(8))):
        path.write_bytes(damaged)
        total += 1
        refused += is_refused(lambda: read(path, what="file"))
    assert refused > total / 2


def test_a_bit_of_every_byte(archive: tuple[Path, Callable[..., Any]], tmp_path: Path) -> None:
    path, read = archive
    whole = path.read_bytes()
    for damaged in flips(whole, 0, lambda position: iter([position % 8])):
        path.write_bytes(damaged)
        is_refused(lambda: read(path, what="file"))


def test_every_cut(archive: tuple[Path, Callable[..., Any]], tmp_path: Path) -> None:
    path, read = archive
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"arrays\.npz"):
            read(path, what="file")
    path.write_bytes(whole + b"more")
    with pytest.raises(ValueError, match="does not end where its directory says"):
        read(path, what="file")


def rewritten(path: Path, change: Callable[[dict[str, bytes]], dict[str, bytes]]) -> None:
    """The archive with other members, under the list that it has; every checksum of the zip file is right."""
    with zipfile.ZipFile(path) as before:
        members = {info.filename: before.read(info) for info in before.infolist()}
        comment = before.comment
    with zipfile.ZipFile(path, "w") as after:
        for name, content in change(members).items():
            after.writestr(name, content)
        after.comment = comment


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda members: {n: c for n, c in members.items() if n != "rates.npy"}, "other arrays than it lists: rates"),
        (lambda members: members | {"more.npy": members["rates.npy"]}, "other arrays than it lists: more"),
        (lambda members: members | {"rates.npy": members["labels.npy"]}, "other arrays than it lists: rates"),
        (lambda members: dict(reversed(members.items())), "other arrays than it lists: in another order"),
        (lambda members: members | {"more.txt": b""}, "'more.txt' is not an array: expected an .npz of arrays"),
    ],
)
def test_other_members_than_listed(tmp_path: Path, change: Any, words: str) -> None:
    path = tmp_path / "arrays.npz"
    for save, read in ((save_arrays, load_arrays), (lambda p, a: save_mappable(p, a.items()), map_arrays)):
        save(path, ARRAYS)
        rewritten(path, change)
        with pytest.raises(ValueError, match=words):
            read(path, what="file")


def test_archives_of_others_have_no_list(tmp_path: Path) -> None:
    path = tmp_path / "theirs.npz"
    fortran = np.asfortranarray(ARRAYS["images"])
    np.savez(path, **(ARRAYS | {"fortran": fortran}))
    found = load_arrays(path, what="file")
    assert same(found, ARRAYS | {"fortran": fortran})
    assert found["fortran"].flags.f_contiguous
    assert found["fortran"].flags.writeable
    mapped = map_arrays(path, what="file")
    assert same(mapped, ARRAYS | {"fortran": fortran})
    assert not mapped.listed
    assert len(mapped) == 4
    with pytest.raises(
        ValueError,
        match=r"theirs\.npz does not list its arrays: another program or an earlier version wrote it; make it anew",
    ):
        load_arrays(path, what="file", listed=True)
    with zipfile.ZipFile(path, "a") as theirs:
        theirs.comment = b"holiday pictures"
    with pytest.raises(ValueError, match="the list of its arrays cannot be read"):
        load_arrays(path, what="file")


def member(header: bytes, data: bytes = b"", version: bytes = b"\1\0") -> bytes:
    padded = header.ljust(117) + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(padded)) + padded + data


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (member(b"{'descr': '<f4', 'fortran_order': False, 'shape': (((, }"), "a header that cannot be read"),
        (member(b"{'descr': '<f4', 'fortran_order': False, 'shape': (0,), "), "a header that cannot be read"),
        (member(b"{'descr': '<x4', 'fortran_order': False, 'shape': (0,), }"), "a header that cannot be read"),
        (member(b"(" * 110), "a header that cannot be read"),
        (b"\x93NUMPY\1\0", "a header that cannot be read"),
        (member(b"{'descr': '<f4', 'fortran_order': False, 'shape': (9,), }"), "another length than its header says"),
        (member(b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }"), "another length than its header says"),
        (
            member(b"{'descr': '<f4', 'fortran_order': False, 'shape': (9" + b"9" * 40 + b",), }"),
            "another length than its header says",
        ),
        (
            member(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", bytes(8)),
            "another length than its header says",
        ),
        (member(b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", bytes(8)), "holds Python objects"),
        (member(b"", version=b"\3\0"), "is not an array of format 1.0 or 2.0"),
    ],
)
@pytest.mark.parametrize("read", [load_arrays, map_arrays])
def test_headers_that_are_damaged(tmp_path: Path, read: Any, content: bytes, words: str) -> None:
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", content)
    with pytest.raises(ValueError, match=rf"x\.npz.*images .*{words}"):
        read(path, what="file")


def test_headers_of_format_2_are_read(tmp_path: Path) -> None:
    written = io.BytesIO()
    np.lib.format.write_array(written, ARRAYS["rates"], version=(2, 0))
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("rates.npy", written.getvalue())
    assert same(load_arrays(tmp_path / "x.npz", what="file"), {"rates": ARRAYS["rates"]})


def test_members_that_cannot_be_mapped(tmp_path: Path) -> None:
    save_arrays(tmp_path / "packed.npz", ARRAYS)
    with pytest.raises(ValueError, match="images is compressed"):
        map_arrays(tmp_path / "packed.npz", what="file")
    save_mappable(tmp_path / "x.npz", ARRAYS.items())
    content = (tmp_path / "x.npz").read_bytes()
    (tmp_path / "x.npz").write_bytes(content.replace(b"labels.npy", b"slebal.npy", 1))
    with pytest.raises(ValueError, match="labels is not where the archive's directory says"):
        map_arrays(tmp_path / "x.npz", what="file")


def test_contents_are_compared_when_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    save_mappable(path, ARRAYS.items())
    content = path.read_bytes()
    path.write_bytes(content.replace(ARRAYS["rates"].tobytes(), np.full(5, 0.25).tobytes()))
    mapped = map_arrays(path, what="table")
    mapped.require_intact(["images", "labels"])
    with pytest.raises(ValueError, match=r"table .*x\.npz is damaged: rates has checksum .* copy or make it anew"):
        mapped.require_intact(["rates"])


def test_what_cannot_be_written(tmp_path: Path) -> None:
    for save in (save_arrays, lambda path, arrays: save_mappable(path, arrays.items())):
        with pytest.raises(TypeError, match="array 'a' has dtype object, expected numbers"):
            save(tmp_path / "x.npz", {"a": np.array([None])})
        with pytest.raises(ValueError, match=r"2000 arrays are too many for one archive: their list has \d+ bytes"):
            save(tmp_path / "x.npz", {f"array {i:020}": np.zeros(1) for i in range(2000)})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("read", [load_arrays, map_arrays])
def test_files_that_are_no_archives(tmp_path: Path, read: Any) -> None:
    with pytest.raises(FileNotFoundError, match=r"file .*x\.npz does not exist"):
        read(tmp_path / "x.npz", what="file")
    (tmp_path / "x.npz").write_bytes(b"text")
    with pytest.raises(ValueError, match=r"x\.npz is not an \.npz file, or was cut short"):
        read(tmp_path / "x.npz", what="file")


# ---- seals


def test_seals() -> None:
    record = {"a": [1, 2.5, None, "ü"], "b": {"c": True}}
    assert sealed(record)["a"] == record["a"]
    text = json.dumps(sealed(record))
    assert unsealed(text) == unsealed(json.dumps(sealed(record), indent=3)) == record
    for broken in (text.replace("2.5", "2.6"), text.replace('"c"', '"d"'), text.replace("true", "false")):
        with pytest.raises(ValueError, match="for this content: it was changed"):
            unsealed(broken)
    for none in ("{}", "[]", '"text"', json.dumps(record)):
        with pytest.raises(ValueError, match="there is no checksum"):
            unsealed(none)
    with pytest.raises(ValueError, match="JSON compliant"):
        sealed({"a": float("nan")})


# ---- what killed processes leave


WRITER = """
import sys, time
from spd_fast.base.files import atomic_write
with atomic_write(sys.argv[1]) as file:
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Process]:
    """A process in the middle of writing the file ``x``."""
    with started([sys.executable, "-c", WRITER, tmp_path / "x"]) as process:
        assert process.reaches(lambda: process.out == "writing\n")
        yield process


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_leftovers_go_when_their_writer_is_dead(tmp_path: Path, writer: Process) -> None:
    (left,) = names(tmp_path)
    assert left.startswith(f".x.{writer.pid}-")
    for _ in range(2):  # it lives: neither a clearing nor another writer of the file touches it
        remove_leftovers(tmp_path)
        assert left in names(tmp_path)
        with atomic_write(tmp_path / "x") as file:
            file.write(b"whole")
    assert names(tmp_path) == [left, "x"]
    writer.send(signal.SIGKILL)
    writer.wait()
    with atomic_write(tmp_path / "y"):
        pass
    assert left in names(tmp_path), "another file's"
    with atomic_write(tmp_path / "x") as file:
        file.write(b"anew")
    assert names(tmp_path) == ["x", "y"]
    assert (tmp_path / "x").read_bytes() == b"anew"


def test_the_number_of_a_living_process_protects_nothing_that_is_not_locked(tmp_path: Path) -> None:
    """Numbers of processes are used again, and other machines have them too: the lock alone counts."""
    mine = [tmp_path / f".x.{os.getpid()}.partial", tmp_path / f".y z.{os.getpid()}-0123abcd.partial"]
    others = [".x.partial", ".x.12.partially", "x.12.partial", ".12.partial", ".x.12-zz.partial"]
    for path in [*mine, *(tmp_path / name for name in others)]:
        path.touch()
    (tmp_path / ".folder.12.partial").mkdir()
    with open(mine[1]) as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        remove_leftovers(tmp_path)
        assert names(tmp_path) == sorted([mine[1].name, *others, ".folder.12.partial"])
    remove_leftovers(tmp_path)
    assert names(tmp_path) == sorted([*others, ".folder.12.partial"])
    remove_leftovers(tmp_path / "nowhere")


def test_a_temporary_file_that_is_taken_away_before_it_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its creation and its lock: a moment that only a function in place of the system's can meet."""
    lock, calls = fcntl.flock, []

    def slow(file: Any, how: int) -> None:
        calls.append(how)
        if len(calls) == 1:
            remove_leftovers(tmp_path)  # calls flock once more
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", slow)
    with atomic_write(tmp_path / "x") as file:
        file.write(b"whole")
    assert len(calls) == 3
    assert (tmp_path / "x").read_bytes() == b"whole"
    assert names(tmp_path) == ["x"]


def test_a_disk_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disks of the machines that run tests have locks: the system's answer is made up."""

    def unknown(*_: Any) -> None:
        raise OSError(95, "Operation not supported")

    (tmp_path / ".x.1.partial").touch()
    monkeypatch.setattr(fcntl, "flock", unknown)
    with atomic_write(tmp_path / "x") as file:
        file.write(b"whole")
    assert names(tmp_path) == [".x.1.partial", "x"], "nobody knows whether its writer lives"
    with pytest.raises(OSError, match="not supported"):
        lock_file(tmp_path / "lock")


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"before")
    with pytest.raises(TypeError, match="bytes-like"), atomic_write(tmp_path / "x") as file:
        file.write("half")  # type: ignore[arg-type]
    assert (tmp_path / "x").read_bytes() == b"before"
    assert names(tmp_path) == ["x"]


# ---- locks


def test_one_holds_a_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    held = lock_file(path)
    with pytest.raises(BlockingIOError):
        lock_file(path)
    release(held)
    release(lock_file(path))


def test_a_process_that_was_forked_keeps_no_lock(tmp_path: Path) -> None:
    """Its descriptor is a second one of the same open file, as that of `os.dup`."""
    held = lock_file(tmp_path / "lock")
    inherited = os.dup(held)
    release(held)
    release(lock_file(tmp_path / "lock"))
    os.close(inherited)


def test_a_lock_on_a_file_that_was_removed_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The holder removes the file at its end, between another's opening and locking: a moment that only a function in place of
    the system's can meet."""
    lock, calls = fcntl.flock, []

    def removing(file: Any, how: int) -> None:
        calls.append(how)
        if len(calls) == 1:
            (tmp_path / "lock").unlink()
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", removing)
    held = lock_file(tmp_path / "lock")
    assert os.path.samestat(os.fstat(held), os.stat(tmp_path / "lock"))
    release(held)


# ---- names that cannot be written, and files of other kinds


def test_names_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence has the name that was given, and not that of a temporary file."""
    (tmp_path / "file").touch()
    for name, error, words in (
        ("absent/x.npz", FileNotFoundError, r"absent/x\.npz cannot be written: .*: the folder .*absent does not exist"),
        ("file/x.npz", NotADirectoryError, r"file/x\.npz cannot be written: .*file is a file, expected a folder"),
        (".", IsADirectoryError, "is a folder, expected the name of a file"),
    ):
        for refused in (require_writable, lambda path: save_arrays(path, ARRAYS)):
            with pytest.raises(error, match=words):
                refused(tmp_path / name)
    with pytest.raises(OSError, match="too long") as caught:
        save_arrays(tmp_path / f"{'x' * 300}.npz", ARRAYS)
    assert "partial" not in str(caught.value)
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(PermissionError, match="may not be written to"):
        require_writable(tmp_path / "x.npz")


def npz(**arrays: Any) -> bytes:
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


RECORD = nasbench_files.frame(b'["0"]')
KINDS = {
    "an empty file": b"",
    "a file of zeros": bytes(100),
    "a CSV table, which spd_fast.rank": b"hash,test_accuracy\n0437,0.9\n",
    "a TSV table": "hash\taccuracy \u00b1\n".encode(),
    "a JSON file": b'[\n {"matrix": []}]',
    "a file of JSON lines": b'{"a": 1}\n{"a": 2}\n',
    "a recipe": b'{\n  "schema": "spd_fast.recipe/2",\n',
    "a record that spd_fast keeps": b'{"schema":"spd_fast.run/2"}',
    "a web page or XML": b"<!DOCTYPE html>",
    "a text": b"hello",
    "a TFRecord file, which spd_fast.nasbench101.convert reads": RECORD,
    "a TFRecord file, which": gzip.compress(RECORD),
    "a CSV table, gzipped": gzip.compress(b"a,b\n"),
    "gzip data that is damaged": b"\x1f\x8b1234",
    "bz2-compressed data": bz2.compress(b"1"),
    "an IDX file": bytes([0, 0, 8, 3, 0, 0, 0, 1]),
    "a pickle, which is never loaded": pickle.dumps({"a": 1}),
    "a single array": b"\x93NUMPY\1\0",
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid",
    "a tar archive": bytes(b"x".ljust(257, b"\0") + b"ustar"),
    "a file of an unknown kind": b"\xfe\xfe\xfe\xfe",
    "an .npz or zip file that is damaged": npz(a=np.zeros(3))[:-9],
    "a truth file, which spd_fast.TruthTable.load reads": npz(schema=np.array("spd_fast.truth/1")),
    "a table of NAS-Bench-101": npz(schema=np.array("spd_fast.nasbench101/2")),
    "a predictor": npz(settings=np.zeros(3, np.uint8)),
    "the checkpoint of a run": npz(step=np.array(3)),
    "a file of images and labels": npz(images=np.zeros(3), labels=np.zeros(3)),
    "a file of columns of cells": npz(vertices=np.zeros(3), edge_bits=np.zeros(3), op_codes=np.zeros(3)),
    "an .npz of the arrays b, c": npz(c=np.zeros(3), b=np.zeros(3)),
}


@pytest.mark.parametrize("words", KINDS)
def test_files_are_known_by_their_content(words: str, tmp_path: Path) -> None:
    path = tmp_path / "misleading.png"
    path.write_bytes(KINDS[words])
    assert str(what_is(path)).startswith(words)


def test_what_a_file_is_ends_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(KINDS["a predictor"])
    assert other_kind(path, "predictor file") == ""
    assert other_kind(tmp_path / "absent", "predictor file") == ""
    assert other_kind(path, "thing") == "; it is a predictor, which spd_fast.SPDPredictor.load reads"
    assert other_kind(path, "dish file").endswith(
        "; expected a file that spd_fast.Dish.save wrote, or an .npz of images and labels"
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    assert other_kind(path, "truth file").startswith(
        "; it is a PyTorch file, which torch.load reads; expected a file that"
    )
