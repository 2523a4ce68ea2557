"""Journals: what is read is what was written, of the same work, whatever happened in between."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spd_fast.base.files import sealed
from spd_fast.base.stores import Journal, Measurements, content_digest, read_journal, read_schema

SCHEMA = "spd_fast.example/1"
REMEDY = "choose another folder"
IDENTITY = {"data": "0123abcd", "recipe": {"seed": 3, "outer": {"epochs": 5}}, "sizes": (1, 2)}
RECORDS = [{"step": 0, "loss": 0.1}, {"step": 1, "loss": 1e-300, "why": "ü"}, {"step": 2, "loss": None}]


def journal(path: Path) -> Journal:
    return Journal(path, SCHEMA, remedy=REMEDY)


def read(path: Path) -> list[dict[str, Any]]:
    return read_journal(path, SCHEMA, remedy=REMEDY)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "steps.jsonl"
    with journal(path) as opened:
        opened.bind(IDENTITY)
        opened.append(RECORDS[:2])
        opened.append(RECORDS[2:])
        opened.sync()
        assert len(opened) == 3
    return path


def test_records_read_back(file: Path) -> None:
    with journal(file) as opened:
        assert opened.records == RECORDS == read(file)
        opened.bind(IDENTITY)
        opened.append([{"step": 3}])
        assert (len(opened), len(opened.records)) == (4, 3)
    assert read(file) == [*RECORDS, {"step": 3}]
    lines = [json.loads(line) for line in file.read_text().splitlines()]  # everyone's JSON lines
    assert lines[0]["schema"] == SCHEMA
    assert [line["step"] for line in lines[1:]] == [0, 1, 2, 3]


def test_records_can_be_dropped(file: Path) -> None:
    with journal(file) as opened:
        opened.bind(IDENTITY)
        opened.keep(1)
        assert opened.records == RECORDS[:1]
        opened.append([{"step": 9}])
    assert read(file) == [RECORDS[0], {"step": 9}]


def test_every_bit_of_a_line(file: Path) -> None:
    """Of an earlier line it is refused; of the last, as of one that was cut short, the line is dropped."""
    whole = file.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    same, refusals = 0, []
    for position in range(len(whole)):
        for bit in range(8):
            flipped = bytearray(whole)
            flipped[position] ^= 1 << bit
            file.write_bytes(flipped)
            try:
                found = read(file)
            except ValueError as error:
                refusals.append((position, str(error)))
                continue
            same += found == RECORDS
            assert found == RECORDS[: len(found)]
            assert len(found) == 3 or position >= last - 1  # the end of the line before joins the two
    assert all(
        position < last - 1 and text.startswith(str(file)) and text.endswith(REMEDY) for position, text in refusals
    )
    assert len(refusals) > 6 * last
    assert same <= 3, "the same number and letter written otherwise: 1E-300, \\u00Fc, \\u00fC"


def test_every_cut(file: Path) -> None:
    whole = file.read_bytes()
    ends = [len(b"".join(whole.splitlines(keepends=True)[: n + 1])) for n in range(4)]
    for length in range(len(whole) + 1):
        kept = max(sum(end <= length for end in ends) - 1, 0)
        for zeros in (b"", bytes(20)):  # a file system may leave zeros after a power failure
            file.write_bytes(whole[:length] + zeros)
            assert read(file) == RECORDS[:kept]
        with journal(file) as opened:
            opened.bind(IDENTITY)
            opened.append(RECORDS[kept:])
        assert file.read_bytes() == whole


def test_a_journal_without_records_binds_nobody(tmp_path: Path) -> None:
    for identity in (IDENTITY, {"data": "other"}):
        with journal(tmp_path / "j") as opened:
            opened.bind(identity)
            assert not len(opened)
    with journal(tmp_path / "j") as opened:
        opened.bind(IDENTITY)
        opened.append(RECORDS)
    assert read(tmp_path / "j") == RECORDS


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": "4567"}, "data is '4567', begun with '0123abcd'"),
        ({"recipe": {"seed": 3, "outer": {"epochs": 6}}}, r"recipe\.outer\.epochs is 6, begun with 5"),
        ({"sizes": (1, 3)}, r"sizes is \[1, 3\], begun with \[1, 2\]"),
        ({"more": 1}, "more is 1, begun with None"),
        ({"recipe": None}, "recipe is None, begun with {'seed': 3"),
        ({"data": 1, "sizes": 2}, "data is 1, begun with '0123abcd'; sizes is 2, begun with"),
    ],
)
def test_another_identity(file: Path, changes: dict[str, Any], words: str) -> None:
    before = file.read_bytes()
    with (
        journal(file) as opened,
        pytest.raises(
            ValueError,
            match=rf"steps\.jsonl was begun with other settings \({words}.*\): use those to continue it, or {REMEDY}",
        ),
    ):
        opened.bind(IDENTITY | changes)
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"my notes", "is not a journal of spd_fast.example/1, or is damaged in line 1"),
        (b"my notes\nabout\n", "is not a journal of spd_fast.example/1, or is damaged in line 1"),
        (b'01234567 {"format": "spd_fast.truth_journal/1"}\n', "is not a journal"),
        (b"\n", "is not a journal"),
        (
            json.dumps(sealed({"schema": "spd_fast.other/1"})).encode() + b"\n",
            "has schema 'spd_fast.other/1', expected 'spd_fast.ex",
        ),
    ],
)
def test_other_files_are_left_alone(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "j"
    path.write_bytes(content)
    for opening in (journal, read):
        with pytest.raises(ValueError, match=rf"{words}.*{REMEDY}"):
            opening(path)
    assert path.read_bytes() == content


def test_one_writer(file: Path) -> None:
    with (
        journal(file),
        pytest.raises(BlockingIOError, match=r"steps\.jsonl is being written by another process: wait for it or stop"),
    ):
        journal(file)
    with pytest.raises(FileNotFoundError):
        journal(file.parent / "nowhere" / "j")
    with pytest.raises(FileNotFoundError):
        read(file.parent / "none")
    opened = journal(file)
    opened.delete()
    opened.close()
    opened.close()
    assert not file.exists()


def test_a_record_that_json_has_no_word_for(file: Path) -> None:
    with journal(file) as opened, pytest.raises(ValueError, match="JSON compliant"):
        opened.append([{"step": 3}, {"loss": float("inf")}])
    assert read(file) == RECORDS


def test_measurements_are_made_once(tmp_path: Path) -> None:
    """Every type and shape of an array comes back as it was, also in another process, and nothing is measured twice."""
    arrays = {
        "single": np.arange(6, dtype=np.float32).reshape(2, 3),
        "scalar": np.array(0.5),
        "nan": np.array([np.nan, np.inf]),
        "integers": np.arange(4)[::2],
    }
    calls: list[str] = []

    def measure() -> dict[str, Any]:
        calls.append("measured")
        return arrays

    for _ in range(2):
        with Measurements(tmp_path / "kept", SCHEMA, IDENTITY, remedy=REMEDY) as kept:
            for _ in range(2):
                found = kept.keep("one", measure)
                assert found.keys() == arrays.keys()
                for name, array in arrays.items():
                    assert found[name].dtype == array.dtype
                    assert np.array_equal(found[name], array, equal_nan=True), name
    assert calls == ["measured"]
    assert read_schema(tmp_path / "kept") == SCHEMA
    (tmp_path / "other").write_bytes(b"{}")
    assert read_schema(tmp_path / "other") is None
    with pytest.raises(ValueError, match="was begun with other settings"):
        Measurements(tmp_path / "kept", SCHEMA, {"data": 1}, remedy=REMEDY)
    with Measurements(tmp_path / "kept", SCHEMA, IDENTITY, remedy=REMEDY):
        pass  # the one that was refused left no lock


def test_digests_of_contents() -> None:
    arrays = {"a": np.arange(4), "b": np.zeros(2)}
    known = content_digest(arrays)
    assert known == content_digest({name: array.copy() for name, array in arrays.items()})
    others = [
        {"a": np.arange(4), "c": np.zeros(2)},
        {"a": np.arange(4).reshape(2, 2), "b": np.zeros(2)},
        {"a": np.arange(4, dtype=np.int32), "b": np.zeros(2)},
        {"a": np.array([0, 1, 2, 4]), "b": np.zeros(2)},
        {"a": np.arange(4)},
    ]
    assert len({known, *map(content_digest, others)}) == 6
