"""NAS-Bench-101: the space, the reader of its files, tables and the official interface."""

import base64
import errno
import gzip
import hashlib
import io
import json
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nasbench_files as files
from processes import started
from spd_fast import NASBENCH101, Cell, TruthTable, count_parameters, nasbench101
from spd_fast._core import nasbench as native
from spd_fast.nasbench101 import Space, Table, api
from spd_fast.nasbench101.table import METRIC_COLUMNS, METRICS
from spd_fast.spaces.cell import OPS
from strategies import cells, relabelled, relabellings

CHAIN = Cell(["010", "001", "000"], ["input", OPS[0], "output"])
DIAMOND = Cell(["0110", "0001", "0001", "0000"], ["input", OPS[0], OPS[2], "output"])


@pytest.fixture(scope="module")
def space() -> Space:
    return nasbench101.enumerate_space()


# ---- checksums


@pytest.mark.parametrize("length", [*range(131), 226, 252, 1000])
def test_md5(length: int) -> None:
    """Every length around the ends of blocks, and more messages than lanes."""
    rng = np.random.default_rng(length)
    messages = [rng.bytes(length) for _ in range(11)]
    assert native.md5(messages) == [hashlib.md5(message).digest() for message in messages]
    with pytest.raises(ValueError, match="messages must have one length"):
        native.md5([b"", b"a"])


def test_crc32c() -> None:
    """The examples of RFC 3720, appendix B.4, and the instruction against the tables against bit by bit."""
    assert native.crc32c(bytes(32)) == 0x8A9136AA
    assert native.crc32c(b"\xff" * 32) == 0x62A8AB43
    assert native.crc32c(bytes(range(32))) == 0x46DD794E
    data = np.random.default_rng(0).bytes(100)
    for length in range(100):
        for start in (0, 1, 3):
            piece = data[start:length]
            expected = files.crc32c(piece)
            assert native.crc32c(piece) == expected
            assert native.crc32c(piece, instruction=False) == expected
    if native.crc32c_has_instruction():
        assert "sse4_2" in Path("/proc/cpuinfo").read_text() or sys.platform != "linux"


# ---- the space


def test_space_counts(space: Space, data_dir: Path) -> None:
    known = json.loads((data_dir / "nb101" / "reference_values.json").read_text())
    edges = np.bitwise_count(space.edge_bits)
    assert len(space) == known["space"]["unique_cells"] == 423_624
    for name, values in (("by_vertices", space.vertices), ("by_edges", edges)):
        assert {str(k): v for k, v in Counter(values.tolist()).items()} == known["space"][name]
    both = Counter(f"{v},{e}" for v, e in zip(space.vertices.tolist(), edges.tolist(), strict=True))
    assert both == known["space"]["by_vertices_edges"]
    parameters = space.trainable_parameters
    assert int(parameters.sum(dtype=np.int64)) == known["params"]["sum"]
    assert len(np.unique(parameters)) == known["params"]["distinct"]
    assert (parameters.min(), parameters.max()) == (known["params"]["min"], known["params"]["max"])
    record = known["official_record_00005c142e6f48ac74fdcf73e3439874"]
    assert space[0] == Cell(record["module_adjacency"], record["module_operations"])
    assert int(parameters[0]) == record["trainable_parameters"]


def test_space_counts_as_published(space: Space) -> None:
    """Without any data: the number of cells by vertices and by edges, and hashes that ascend, so that none repeats."""
    assert np.bincount(space.vertices).tolist() == [0, 0, 1, 6, 84, 2441, 62010, 359082]
    assert np.bincount(np.bitwise_count(space.edge_bits)).tolist() == [
        0, 1, 3, 12, 60, 339, 2134, 13984, 78822, 328269,
    ]  # fmt: skip
    halves = space.module_hash.copy().view(">u8").astype(np.uint64)
    assert ((halves[1:, 0] > halves[:-1, 0]) | (halves[1:, 1] > halves[:-1, 1])).all()
    assert (halves[1:, 0] >= halves[:-1, 0]).all()
    assert repr(space) == "Space(423,624 cells)"


def test_space_agrees_with_every_known_row(space: Space, data_dir: Path) -> None:
    with np.load(data_dir / "nb101" / "nb101_test108.npz") as known:
        rows = np.searchsorted(
            space.module_hash.copy().view("V16").ravel().view("S16"),
            known["module_hash"].copy().view("V16").ravel().view("S16"),
        )
        assert len(rows) == 337_332
        for name in ("module_hash", "vertices", "edge_bits", "op_codes", "trainable_parameters"):
            assert np.array_equal(getattr(space, name)[rows], known[name]), name


def test_space_agrees_with_the_official_generator(space: Space, data_dir: Path) -> None:
    known = json.loads((data_dir / "nb101" / "generated_graphs_5V9E.json").read_text())
    assert len(known) == 2532
    for module_hash, (matrix, labels) in known.items():
        cell = Cell(matrix, ["input", *(OPS[label] for label in labels[1:-1]), "output"])
        stored = space[space.row(module_hash)]
        assert stored == cell


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_cells_of_the_space(space: Space, data: st.DataObject) -> None:
    """Any cell is there, by any numbering; the stored matrix is the smallest of its class, its hash and parameters are ours."""
    cell = data.draw(cells())
    other = relabelled(cell, data.draw(relabellings(cell)))
    row = space.row(cell)
    assert space.row(other) == space.row(cell.module_hash) == row
    stored = space[row]
    assert (stored.edge_bits, stored.op_codes) <= (other.edge_bits, other.op_codes)
    assert int(space.trainable_parameters[row]) == count_parameters(stored, NASBENCH101)


def test_space_does_not_depend_on_threads(space: Space) -> None:
    other = nasbench101.enumerate_space(threads=3)
    for name in ("module_hash", "edge_bits", "op_codes", "trainable_parameters"):
        assert np.array_equal(getattr(space, name), getattr(other, name))


def test_ctrl_c_stops_the_enumeration() -> None:
    """The main thread is interrupted within a second; whether the machine is busy does not matter."""
    stop = threading.Timer(0.2, lambda: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT))
    stop.start()
    began = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        nasbench101.enumerate_space(threads=1)
    assert time.perf_counter() - began < 5


def test_space_lookups_that_fail(space: Space) -> None:
    with pytest.raises(ValueError, match=r"no cell of the space has module_hash 0{32}"):
        space.row("0" * 32)
    with pytest.raises(ValueError, match="module_hash is '1234', expected 32 hexadecimal digits"):
        space.row("1234")
    with pytest.raises(ValueError, match=r"module_hash is 'G{32}', expected 32 hexadecimal"):
        space.row("G" * 32)
    with pytest.raises(ValueError, match=r"module_hash must have shape \(n, 16\)"):
        native.HashIndex(space.module_hash[:, :8].copy())


def test_a_column_that_a_table_does_not_have() -> None:
    with pytest.raises(ValueError, match="there is no column of metric 0, budget 2, run 1"):
        native.TableBuilder(True).column(0, 2, 1)


def test_space_samples(space: Space) -> None:
    rows = space.sample(2000, seed=1)
    assert len(set(rows.tolist())) == 2000
    assert np.array_equal(space.sample(100, seed=1), rows[:100])
    assert not np.array_equal(space.sample(100, seed=2), rows[:100])
    # the share of 7 vertices among 2,000 of 423,624: binomial, four standard deviations
    share = 359_082 / 423_624
    assert abs((space.vertices[rows] == 7).mean() - share) < 4 * np.sqrt(share * (1 - share) / 2000)
    small = space.sample(91, seed=0, where=space.vertices <= 4)
    assert sorted(space.vertices[small].tolist()) == [2, *[3] * 6, *[4] * 84]
    table = TruthTable(space[rows], {"test_accuracy": np.zeros((2000, 1, 1))}, (1,), (0,))
    assert table.sample(5, 1).hashes == tuple(space[int(row)].module_hash for row in rows[:5])
    with pytest.raises(ValueError, match="n is 92, expected 0 to 91"):
        space.sample(92, seed=0, where=space.vertices <= 4)
    with pytest.raises(ValueError, match=r"where is int64 \(2,\), expected one bool per row"):
        space.sample(1, seed=0, where=np.zeros(2, int))


@given(st.lists(cells(), min_size=1, max_size=20))
def test_hashes_of_many_cells(drawn: list[Cell]) -> None:
    columns = [
        np.array([cell.n_vertices for cell in drawn], np.uint8),
        np.array([cell.edge_bits for cell in drawn], np.uint32),
        np.array([cell.packed_op_codes for cell in drawn], np.uint16),
    ]
    assert [each.tobytes().hex() for each in native.hash_cells(*columns)] == [cell.module_hash for cell in drawn]
    with pytest.raises(ValueError, match="columns of one length"):
        native.hash_cells(columns[0], columns[1], columns[2][1:])
    with pytest.raises(ValueError, match="row 0 does not have 2 to 7 vertices"):
        native.hash_cells(np.zeros_like(columns[0]), *columns[1:])


def test_columns_that_another_thread_writes_to_while_they_are_hashed(space: Space) -> None:
    """What is hashed is what was handed over."""
    rows = np.repeat(np.arange(0, len(space), 1000), 300)
    columns = [np.ascontiguousarray(getattr(space, name)[rows]) for name in ("vertices", "edge_bits", "op_codes")]
    ready, go = threading.Event(), threading.Event()

    def scribble() -> None:
        ready.set()
        go.wait()
        columns[2].fill(0)

    writer = threading.Thread(target=scribble)
    writer.start()
    ready.wait()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)  # nobody else runs before the call lets go of the interpreter
    try:
        go.set()
        hashes = native.hash_cells(*columns, threads=1)
    finally:
        sys.setswitchinterval(interval)
    writer.join()
    assert not columns[2].any()
    assert np.array_equal(hashes, space.module_hash[rows])


# ---- moves


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_neighbours(data: st.DataObject) -> None:
    cell = data.draw(cells())
    near = nasbench101.neighbours(cell)
    hashes = [each.module_hash for each in near]
    assert hashes == sorted(set(hashes))
    assert cell.module_hash not in hashes
    other = relabelled(cell, data.draw(relabellings(cell)))
    assert [each.module_hash for each in nasbench101.neighbours(other)] == hashes
    # what changes an operation or an edge and prunes nothing can be changed back
    same_size = [each for each in near if each.n_vertices == cell.n_vertices]
    for each in same_size[:5]:
        assert cell.module_hash in [back.module_hash for back in nasbench101.neighbours(each)]


def test_neighbours_by_hand() -> None:
    """Of input - conv3x3 - output: two other operations, the edge past it, the vertex away, and a vertex more."""
    near = nasbench101.neighbours(CHAIN)
    changed = [Cell(CHAIN.matrix, ["input", op, "output"]) for op in OPS[1:]]
    past = Cell(["011", "001", "000"], ["input", OPS[0], "output"])
    hashes = {each.module_hash for each in near}
    assert {each.module_hash for each in [*changed, past]} == {e.module_hash for e in near if e.n_vertices == 3}
    # a vertex before it, after it or beside it
    larger = [
        *(Cell(np.array(matrix), ["input", first, second, "output"])
          for op in OPS
          for matrix, first, second in (
              ([[0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]], op, OPS[0]),
              ([[0, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]], OPS[0], op),
              ([[0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]], OPS[0], op),
          ))
    ]  # fmt: skip
    assert {each.module_hash for each in larger} == {e.module_hash for e in near if e.n_vertices == 4}
    assert hashes == {each.module_hash for each in [*changed, past, *larger]}


def test_moves_reach_cells_of_every_size() -> None:
    rng = np.random.default_rng(0)
    smallest = Cell(["01", "00"], ["input", "output"])
    cell, seen = smallest, set()
    for _ in range(300):
        cell = nasbench101.mutate(cell, rng)
        seen.add(cell.n_vertices)
    assert {2, 3, 4, 5, 6} <= seen
    chain = Cell(np.eye(7, k=1, dtype=int), ["input", *[OPS[0]] * 5, "output"])
    assert {5, 6, 7} <= {nasbench101.mutate(chain, rng).n_vertices for _ in range(100)}
    assert [each.n_vertices for each in nasbench101.neighbours(smallest)] == [3, 3, 3]


@settings(deadline=None, max_examples=50)
@given(cells(), cells(), st.integers(0, 2**32))
def test_mutation_and_crossover(first: Cell, second: Cell, seed: int) -> None:
    child = nasbench101.mutate(first, np.random.default_rng(seed))
    assert not nasbench101.isomorphic(child, first)
    assert child == nasbench101.mutate(first, np.random.default_rng(seed))
    mixed = nasbench101.crossover(first, second, np.random.default_rng(seed))
    assert mixed == nasbench101.crossover(first, second, np.random.default_rng(seed))
    assert set(mixed.ops[1:-1]) <= set(OPS)


def test_crossover_takes_from_both() -> None:
    """Parents of seven vertices that share what their child must have."""
    first = Cell(np.eye(7, k=1, dtype=int), ["input", *[OPS[0]] * 5, "output"])
    second = Cell(np.eye(7, k=1, dtype=int), ["input", *[OPS[2]] * 5, "output"])
    for seed in range(20):
        child = nasbench101.crossover(first, second, np.random.default_rng(seed))
        assert np.array_equal(child.matrix, first.matrix)
        assert set(child.ops[1:-1]) <= {OPS[0], OPS[2]}
    assert len({nasbench101.crossover(first, second, np.random.default_rng(seed)).ops for seed in range(20)}) > 5


@pytest.mark.parametrize("rate", [0, -1, 5.5, float("nan")])
def test_mutation_rates_out_of_range(rate: float) -> None:
    with pytest.raises(ValueError, match=r"rate is .*, expected above 0 to 5"):
        nasbench101.mutate(CHAIN, np.random.default_rng(0), rate)


def test_isomorphic() -> None:
    swapped = Cell(DIAMOND.matrix, ["input", OPS[2], OPS[0], "output"])
    assert nasbench101.isomorphic(DIAMOND, swapped)
    assert swapped != DIAMOND
    assert not nasbench101.isomorphic(DIAMOND, CHAIN)


# ---- reading


def convert(source: Any, tmp_path: Path, **settings: Any) -> Table:
    return nasbench101.convert(source, tmp_path / "table.npz", **settings)


def message_class(proto: Path) -> Any:
    """ModelMetrics by protobuf itself, from the official schema."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    types = {"double": 1, "int32": 5, "string": 9, "EvaluationData": 11}
    file = descriptor_pb2.FileDescriptorProto(name="model_metrics.proto", package="nasbench", syntax="proto2")
    declaration = re.compile(r"message (\w+) \{|(repeated|optional) (\w+) (\w+) = (\d+);")
    for name, label, kind, field, place in declaration.findall(re.sub("//.*", "", proto.read_text())):
        if name:
            file.message_type.add(name=name)
            continue
        added = file.message_type[-1].field.add(name=field, number=int(place), type=types[kind])
        added.label = 3 if label == "repeated" else 1
        if kind == "EvaluationData":
            added.type_name = ".nasbench.EvaluationData"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("nasbench.ModelMetrics"))


@pytest.mark.parametrize("name", ["epochs_4_spec_3V9E", "carbon_3V9E", "carbon_4V9E"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_reader_agrees_with_protobuf(name: str, data_dir: Path, tmp_path: Path) -> None:
    folder = data_dir / "nb101" / "tfrecord"
    source = folder / f"{name}.tfrecord"
    rows = files.unframed(source.read_bytes())
    assert len(rows) == {"epochs_4_spec_3V9E": 21, "carbon_3V9E": 63, "carbon_4V9E": 84}[name]
    kind = message_class(folder / "model_metrics.proto")
    table = convert(source, tmp_path)
    assert table.provenance["records"] == len(rows)
    runs: Counter[tuple[str, int]] = Counter()
    for module_hash, epochs, adjacency, ops, encoded in rows:
        message = kind.FromString(base64.b64decode(encoded))
        run = runs[module_hash, epochs]
        runs[module_hash, epochs] += 1
        row = table.row(module_hash)
        n = len(ops.split(","))
        assert table[row] == Cell(np.array(list(map(int, adjacency))).reshape(n, n), ops.split(","))
        assert int(table.trainable_parameters[row]) == message.trainable_parameters
        for halfway, evaluation in ((True, message.evaluation_data[1]), (False, message.evaluation_data[2])):
            found = table.query(module_hash, epochs, run, halfway=halfway)
            assert list(found) == [np.float32(getattr(evaluation, metric)) for metric in METRICS]
    assert set(table.budgets) == {row[1] for row in rows}
    table.verify()


def official_payloads(data_dir: Path) -> tuple[list[bytes], dict[str, Any]]:
    records = json.loads((data_dir / "nb101" / "official_full_records_best4.json").read_text())
    unique = {record["module_hash"]: record for record in records.values()}
    payloads = [
        files.payload(
            Cell(record["module_adjacency"], record["module_operations"]),
            int(epochs),
            [[run[f"{moment}_{metric}"] for metric in METRICS] for moment in files.MOMENTS],
            record["trainable_parameters"],
        )
        for record in unique.values()
        for epochs, runs in record["stats"].items()
        for run in runs
    ]
    return payloads, unique


def test_official_records(data_dir: Path, tmp_path: Path, space: Space) -> None:
    """Complete official records, encoded again: every number comes back, and is a float32."""
    payloads, records = official_payloads(data_dir)
    table = convert(files.write(tmp_path / "official.tfrecord", payloads), tmp_path)
    assert (len(table), table.budgets, table.runs) == (len(records), (4, 12, 36, 108), 3)
    for module_hash, record in records.items():
        assert table[table.row(module_hash)] == space[space.row(module_hash)]
        for epochs, runs in record["stats"].items():
            for repeat, run in enumerate(runs):
                for halfway in (False, True):
                    found = table.query(module_hash, int(epochs), repeat, halfway=halfway)
                    moment = "halfway" if halfway else "final"
                    assert found._asdict() == {metric: run[f"{moment}_{metric}"] for metric in METRICS}
    assert table.verify() is None
    best = next(iter(records))
    mean = np.mean([run["final_test_accuracy"] for run in records[best]["stats"]["108"]])
    assert table.query(best).test_accuracy == pytest.approx(mean, rel=1e-15)


def test_foreign_schemas_are_read_and_told(data_dir: Path, tmp_path: Path) -> None:
    source = data_dir / "nb101" / "tfrecord" / "carbon_3V9E.tfrecord"
    with (
        pytest.warns(
            UserWarning, match=r"63 of 63 records have fields that the official schema does not have.*EC-NAS-Bench"
        ),
        pytest.warns(UserWarning, match="the middle evaluation of 63 of 63 records was not taken after half"),
    ):
        table = convert(source, tmp_path)
    assert "extended_schema: 63 of 63 records" in table.describe()


def many(n: int, epochs: tuple[int, ...] = (4, 108), runs: int = 3) -> list[bytes]:
    """Payloads of n cells of the space, in no order."""
    rng = np.random.default_rng(5)
    cell, drawn = CHAIN, {}
    while len(drawn) < n:
        drawn[cell.module_hash] = cell
        cell = nasbench101.mutate(cell, rng)
    payloads = [
        files.payload(each, budget, files.random_values(rng))
        for each in drawn.values()
        for budget in epochs
        for _ in range(runs)
    ]
    return payloads


def same(first: Table, second: Table) -> bool:
    return first.path.read_bytes() == second.path.read_bytes()


def test_the_same_from_path_file_gzip_and_any_threads(tmp_path: Path) -> None:
    payloads = many(40)
    source = files.write(tmp_path / "x.tfrecord", payloads)
    expected = convert(source, tmp_path)
    data = source.read_bytes()
    (tmp_path / "x.gz").write_bytes(gzip.compress(data[:3000]) + gzip.compress(data[3000:]))

    class Dribble(io.RawIOBase):
        """A pipe that gives one to some thousand bytes at a time and cannot seek."""

        name = "x.tfrecord"

        def __init__(self) -> None:
            self.left = data
            self.n = 1

        def read(self, size: int = -1) -> bytes:
            self.n = self.n * 3 % 4099
            piece, self.left = self.left[: self.n], self.left[self.n :]
            return piece

    def shown(table: Table) -> list[Any]:
        return [getattr(table, name).tolist() for name in ("module_hash", "edge_bits", "trainable_parameters")] + [
            table.column(m, epochs=e, repeat="all", halfway=h).tolist()
            for m in METRICS
            for e in (4, 108)
            for h in (False, True)
        ]

    for i, other in enumerate([tmp_path / "x.gz", io.BytesIO(data), Dribble(), io.BytesIO(gzip.compress(data))]):
        table = nasbench101.convert(other, tmp_path / f"{i}.npz", threads=i + 1)
        assert shown(table) == shown(expected)
    with source.open("rb") as file:
        assert same(nasbench101.convert(file, tmp_path / "again.npz"), expected)


def test_progress_and_order(tmp_path: Path) -> None:
    shares: list[float] = []
    source = files.write(tmp_path / "x.tfrecord", many(30))
    table = convert(source, tmp_path, progress=shares.append)
    assert shares[-1] == 1.0
    hashes = [table.module_hash[row].tobytes().hex() for row in range(30)]
    assert hashes == sorted(hashes)
    assert [cell.module_hash for cell in table] == hashes


def test_every_truncation_of_a_small_file(tmp_path: Path) -> None:
    """At a boundary of records it is a shorter file; anywhere else one clear error with the record and the place."""
    payloads = many(1, epochs=(4,), runs=2)
    whole = b"".join(map(files.frame, payloads))
    boundary = len(files.frame(payloads[0]))
    for length in range(len(whole)):
        if length == boundary:
            assert convert(io.BytesIO(whole[:length]), tmp_path).provenance["records"] == 1
            continue
        record, offset = (0, 0) if length < boundary else (1, boundary)
        expected = (
            "the file object: holds no record"
            if length == 0
            else f"the file object: record {record}, counted from 0, at byte {offset}: the file ends {length - offset} bytes into a record: it was cut short"
        )
        with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
            convert(io.BytesIO(whole[:length]), tmp_path)


def test_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    payloads = many(1, epochs=(4,), runs=1)
    whole = bytearray(files.frame(payloads[0]))
    for place in range(len(whole)):
        whole[place] ^= 0x10
        with pytest.raises(
            ValueError, match=r"record 0, counted from 0, at byte 0: (length|payload of .*) fails its checksum"
        ):
            convert(io.BytesIO(bytes(whole)), tmp_path)
        whole[place] ^= 0x10


def header(length: int) -> bytes:
    packed = struct.pack("<Q", length)
    return packed + files.masked(files.crc32c(packed))


def broken(**parts: Any) -> bytes:
    """A payload in which some parts are replaced."""
    usual = {
        "module_hash": CHAIN.module_hash,
        "epochs": 4,
        "adjacency": "010001000",
        "ops": "input,conv3x3-bn-relu,output",
        "message": files.metrics(4, 1000, [1, 0.5, 0.5, 0.5], [2, 0.6, 0.6, 0.6]),
    }
    return files.row(**(usual | parts))


def message(*evaluations: bytes, parameters: bytes = files.varint(16) + files.varint(7), more: bytes = b"") -> bytes:
    return b"".join(files.text(1, each) for each in evaluations) + parameters + more


START, HALF, END = (files.evaluation(epoch, [1, 0.1, 0.1, 0.1]) for epoch in (0, 2, 4))


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (b"", r"payload is not the JSON list of a row: expected '\[' at its start"),
        (b"{}", r"expected '\[' at its start"),
        (b"[4]", "expected '\"' at hash"),
        (b'["ab', "hash is not a whole JSON string"),
        (b'["\\x"]', "hash is not a whole JSON string"),
        (b'["\\u00', "hash is not a whole JSON string"),
        (b'["\\u00zz"]', "hash is not a whole JSON string"),
        (b'["\\u00e9"]', "hash holds a character that is not ASCII"),
        (broken(module_hash="12"), "hash has 2 characters, expected 32"),
        (broken(module_hash="x" * 32), "hash is not of 32 hexadecimal digits"),
        (broken(epochs=0), "epochs is not a whole number of 1 to 2147483647"),
        (broken(epochs=2**31), "epochs is not a whole number"),
        (broken(epochs=-4), "epochs is not a whole number"),
        (broken(epochs="4"), "epochs is not a whole number"),
        (broken(epochs=4.5), "expected ',' at the end of epochs"),
        (broken(adjacency="0100"), "operations are not input, one per interior vertex, output"),
        (broken(adjacency="01000100"), "adjacency has 8 characters, expected the square of 2 to 7"),
        (broken(adjacency="0" * 64), "adjacency has 64 characters"),
        (broken(adjacency="010001010"), "adjacency is not an upper triangle of 0 and 1"),
        (broken(adjacency="020001000"), "adjacency is not an upper triangle of 0 and 1"),
        (broken(ops="input,conv5x5,output"), "operations are not input"),
        (broken(ops="input,output"), "operations are not input"),
        (broken(ops="input,maxpool3x3,output,output"), "operations are not input"),
        (broken(ops=""), "operations are not input"),
        (broken()[:-1], r"expected '\]' at the end of metrics"),
        (broken() + b" x", "payload goes on after the JSON list"),
        (broken().replace(b'Ci', b'C?', 1), "metrics are not base64"),
        (broken().replace(b'\\n"]', b'A\\n"]'), "metrics are (not base64|base64 that was cut short)"),
        (broken(message=b""), "metrics hold 0 evaluations, expected 3"),
        (broken(message=message(START, HALF)), "metrics hold 2 evaluations, expected 3"),
        (broken(message=message(START, HALF, END, END)), "metrics hold 4 evaluations, expected 3"),
        (broken(message=message(START, HALF, END)[:-1]), "metrics end inside a field"),
        (broken(message=message(START, HALF, END, parameters=b"")), "metrics have no trainable_parameters"),
        (broken(message=message(START, HALF, END, parameters=b"\x10" + files.varint(-5))), "metrics have no trainable_par"),
        (broken(message=message(START, HALF, END[:-9])), "evaluation 3 of 3 has no test_accuracy"),
        (broken(message=message(START, HALF[9:], END)), "evaluation 2 of 3 has no current_epoch"),
        (broken(message=message(START, HALF, END, more=b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f")), "end inside a field"),
        (broken(message=message(START, HALF, END, more=b"\x0a" + b"\xff" * 10)), "a number of more than 64 bits"),
        (broken(message=message(START, HALF, END, more=b"\x0a" + b"\xff" * 9 + b"\x02")), "a number of more than 64 bits"),
        (broken(message=message(START, HALF, END, more=b"\x07")), "metrics hold an impossible field"),
        (broken(message=message(START, HALF, END, more=b"\x00\x00")), "metrics hold an impossible field"),
        (broken(message=message(START, HALF, END, more=files.varint(1 << 35))), "metrics hold an impossible field"),
        (broken(message=message(START, HALF, END, more=b"\x54")), "the end of a group that did not begin"),
        (broken(message=message(START, HALF, END, more=b"\x53\x5c")), "the end of a group that did not begin"),
        (broken(message=message(START, HALF, END, more=b"\x53" * 40)), "groups that are nested too deeply"),
        (broken(message=message(START, HALF, END, more=b"\x53")), "metrics end inside a field"),
        (broken(message=message(START, HALF, END, more=b"\x55\x00")), "metrics end inside a field"),
        (
            broken(message=files.metrics(4, 9, [1, 0.5, 0.5, 0.5], [2, 0.5, 1.5, 0.5])),
            "validation_accuracy of evaluation 3 of 3 is 1.500000, expected 0 to 1",
        ),
        (broken(message=files.metrics(4, 9, [1, 0.5, 0.5, float("nan")], [2, 0.5, 0.5, 0.5])), "test_accuracy of evaluation 2 of 3 is -?nan"),
        (broken(message=files.metrics(4, 9, [-1, 0.5, 0.5, 0.5], [2, 0.5, 0.5, 0.5])), "training_time of evaluation 2 .* at least 0"),
        (broken(message=files.metrics(4, 9, [1, 0.5, 0.5, 0.5], [float("inf"), 0.5, 0.5, 0.5])), "training_time of evaluation 3"),
        (broken(epochs=5), "the last evaluation is after 4.000000 epochs, expected the row's 5"),
    ],
)  # fmt: skip
def test_records_that_are_wrong(payload: bytes, text: str, tmp_path: Path) -> None:
    """The one bad record is named; without strictness the good ones around it are read and it is told."""
    good = many(2, epochs=(4,), runs=1)
    data = files.frame(good[0]) + files.frame(payload) + files.frame(good[1])
    place = f"record 1, counted from 0, at byte {len(files.frame(good[0]))}: "
    with pytest.raises(ValueError, match=f"^the file object: {place}.*{text}"):
        convert(io.BytesIO(data), tmp_path)
    with pytest.warns(UserWarning, match="1 places could not be read; the first: " + place):
        table = convert(io.BytesIO(data), tmp_path, strict=False)
    assert len(table) == 2
    assert table.provenance["records"] == 2


def contradiction(cell: Cell = DIAMOND, **changes: Any) -> bytes:
    swapped = Cell(DIAMOND.matrix, ["input", OPS[2], OPS[0], "output"])
    return files.payload(swapped if changes.pop("swapped", False) else cell, 4, [[1, 0.5, 0.5, 0.5]] * 2, **changes)


@pytest.mark.parametrize(
    ("payloads", "text"),
    [
        (
            [contradiction(), contradiction(swapped=True)],
            "record 1, .*the graph differs from that of an earlier record",
        ),
        (
            [contradiction(), contradiction(parameters=7)],
            "record 1, .*trainable_parameters are 7, but 1000 in an earlier",
        ),
        ([contradiction()] * 33, "record 32, .*more than 32 runs of one cell at 4 epochs"),
        (
            [files.payload(CHAIN, epochs, [[1, 0.5, 0.5, 0.5]] * 2) for epochs in range(1, 34)],
            "record 32, .*epochs are 33: more than 32 different budgets",
        ),
    ],
)
def test_records_that_contradict_each_other(payloads: list[bytes], text: str, tmp_path: Path) -> None:
    source = files.write(tmp_path / "x.tfrecord", payloads)
    with pytest.raises(ValueError, match=text):
        convert(source, tmp_path)
    assert not (tmp_path / "table.npz").exists()
    with pytest.warns(UserWarning, match="1 places could not be read"):
        assert convert(source, tmp_path, strict=False).provenance["records"] == len(payloads) - 1


@pytest.mark.parametrize("length", [2**20 + 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1])
def test_huge_lengths(length: int, tmp_path: Path) -> None:
    """A length with a valid checksum is not believed; what follows is found again."""
    good = many(2, epochs=(4,), runs=1)
    data = files.frame(good[0]) + header(length) + b"some bytes" + files.frame(good[1])
    with pytest.raises(
        ValueError, match=f"record 1, .*: length is {length} bytes, expected at most 1048576: not a file of"
    ):
        convert(io.BytesIO(data), tmp_path)
    with pytest.warns(UserWarning, match=f"1 places could not be read; the first: record 1, .*length is {length}"):
        assert len(convert(io.BytesIO(data), tmp_path, strict=False)) == 2


def test_the_longest_payload_is_still_read(tmp_path: Path) -> None:
    payload = broken()
    padded = payload + b" " * (2**20 - len(payload))
    assert len(convert(io.BytesIO(files.frame(padded, native.crc32c)), tmp_path)) == 1


def test_damage_is_passed_over(tmp_path: Path) -> None:
    """Holes of zeros, of noise, a cut record, foreign bytes at both ends: every whole record is found."""
    frames = [files.frame(payload) for payload in many(6, epochs=(4,), runs=1)]
    noise = np.random.default_rng(0).bytes(5000)
    data = (
        noise[:100] + frames[0] + bytes(1000) + frames[1] + frames[2][:200] + frames[3] + noise + frames[4] + noise[:37]
    )
    with pytest.warns(
        UserWarning, match="places could not be read; the first: record 0, counted from 0, at byte 0: length"
    ):
        table = convert(io.BytesIO(data), tmp_path, strict=False)
    # frames[2] claims bytes of frames[3], which are then read anew only where its payload's checksum is not believed
    assert {0, 1, 4} <= {i for i, f in enumerate(frames) if table_has(table, f)}


def table_has(table: Table, framed: bytes) -> bool:
    (row,) = files.unframed(framed)
    return row[0] in {each.module_hash for each in table}


def test_files_that_hold_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"empty\.tfrecord: holds no record"):
        convert(files.write(tmp_path / "empty.tfrecord", []), tmp_path)
    with pytest.raises(
        ValueError, match="no record could be read; the first fault: record 0, counted from 0, at byte 0"
    ):
        convert(io.BytesIO(bytes(100_000)), tmp_path, strict=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.tfrecord"]


def test_things_that_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        convert(tmp_path / "absent", tmp_path)
    with pytest.raises(IsADirectoryError):
        convert(tmp_path, tmp_path)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(OSError, match="symbolic link") as caught:
        convert(tmp_path / "loop", tmp_path)
    assert caught.value.errno == errno.ELOOP
    with pytest.raises(TypeError, match="tfrecord gives str, expected bytes: open it in binary mode"):
        convert(io.StringIO("text"), tmp_path)
    source = files.write(tmp_path / "x.tfrecord", many(1))
    with pytest.raises(IsADirectoryError, match="is a folder, expected the name of a table"):
        nasbench101.convert(source, tmp_path)
    with pytest.raises(FileNotFoundError):
        nasbench101.convert(source, tmp_path / "absent" / "table.npz")
    before = source.read_bytes()
    with pytest.raises(ValueError, match=r"x\.tfrecord is both the file to read and the table to write: choose"):
        nasbench101.convert(source, source)
    assert source.read_bytes() == before
    with pytest.raises(ValueError, match="is damaged here, or is not a TFRecord file"):
        convert(io.BytesIO(b"module_hash,epochs\n0,4\n"), tmp_path)


def test_damaged_gzip(tmp_path: Path) -> None:
    data = gzip.compress(b"".join(map(files.frame, many(3))))
    with pytest.raises(ValueError, match="the gzip data ends early: the file was cut short"):
        convert(io.BytesIO(data[:-1]), tmp_path)
    with pytest.raises(ValueError, match="is damaged gzip data"):
        convert(io.BytesIO(data[:100] + b"\xff\xff" + data[102:]), tmp_path)
    with pytest.raises(ValueError, match="is damaged gzip data"):
        convert(io.BytesIO(data + b"more"), tmp_path)


def test_gzip_with_zeros_behind_it(tmp_path: Path) -> None:
    """Padding of tapes and of copies in blocks, also between members."""
    frames = [files.frame(payload) for payload in many(3)]
    data = b"".join(gzip.compress(frame) + bytes(600) for frame in frames)
    assert convert(io.BytesIO(data), tmp_path).provenance["records"] == len(frames)


def test_what_precedes_damage_in_gzip_is_read(tmp_path: Path) -> None:
    frames = [files.frame(payload) for payload in many(40)]
    plain = b"".join(frames)
    data = gzip.compress(plain)
    half = zlib.decompressobj(wbits=31).decompress(data[: len(data) // 2])
    whole = sum(np.cumsum([len(frame) for frame in frames]) <= len(half))
    assert whole > 50
    for damaged, words, least in (
        (data[: len(data) // 2], "the gzip data ends early", whole),
        (data[: len(data) // 2] + b"\xff" * 2000, "the gzip data is damaged", whole),
        (data[:-8] + bytes(8), "the gzip data is damaged: .*incorrect data check", len(frames)),
        (data + b"more", "the gzip data is damaged", len(frames)),
    ):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            table = convert(io.BytesIO(damaged), tmp_path, strict=False)
        assert any(re.search(words, str(each.message)) for each in told)
        assert least <= table.provenance["records"] <= len(frames)
        assert "left_out" in table.provenance


@pytest.mark.parametrize("packed", [False, True])
def test_hashes_that_are_not_those_of_their_graphs(packed: bool, tmp_path: Path) -> None:
    """A hash of another graph, and a graph that is not pruned, with its own hash and with that of the pruned one."""
    values = [[1, 0.5, 0.5, 0.5]] * 2
    loose, ops = "0110000100000000", "input,conv3x3-bn-relu,maxpool3x3,output"
    of_loose = native.hash_cells(
        np.array([4], np.uint8), np.array([0b010011], np.uint32), np.array([0b1111111000], np.uint16)
    )
    bad = [
        files.row("0" * 32, 4, "0110000100010000", ops, files.metrics(4, 1000, *values)),
        files.row(CHAIN.module_hash[::-1], 4, loose, ops, files.metrics(4, 1000, *values)),
        files.row(of_loose.tobytes().hex(), 4, loose, ops, files.metrics(4, 1000, *values)),
    ]
    good = many(2, epochs=(4,), runs=1)
    for payload in bad:
        data = b"".join(map(files.frame, [good[0], payload, good[1], payload]))
        content = gzip.compress(data) if packed else data
        words = f"record 1, counted from 0, at byte {len(files.frame(good[0]))}: module_hash .* is not the hash of its graph"
        with pytest.raises(ValueError, match=words):
            convert(io.BytesIO(content), tmp_path)
        assert not (tmp_path / "table.npz").exists()
        with pytest.warns(UserWarning, match=f"1 cells were left out; the first: {words}"):
            table = convert(io.BytesIO(content), tmp_path, strict=False)
        assert (len(table), table.provenance["records"]) == (2, 2)
        table.verify()
        table.path.unlink()
        with pytest.raises(ValueError, match="no record could be read; the first fault: record 0"):
            convert(io.BytesIO(files.frame(payload)), tmp_path, strict=False)


def test_files_of_other_kinds_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("module_hash,epochs\n0,4\n")
    for strict in (True, False):
        with pytest.raises(ValueError, match=r"it is a CSV table, which spd_fast\.rank .* expected a TFRecord file"):
            convert(tmp_path / "x.csv", tmp_path, strict=strict)


def test_the_name_of_the_table_is_checked_before_anything_is_read(tmp_path: Path) -> None:
    class Unread(io.BytesIO):
        def read(self, _: int | None = -1) -> bytes:
            raise AssertionError("it was read")

    with pytest.raises(FileNotFoundError, match=r"absent/x\.npz cannot be written: "):
        nasbench101.convert(Unread(), tmp_path / "absent" / "x.npz")


def test_gzip_bombs_take_no_memory(tmp_path: Path) -> None:
    """400 MB of zeros from 2 MB, read to their end without strictness, in the memory of a few pieces."""
    packer = zlib.compressobj(1, wbits=31)
    block = bytes(1 << 24)
    with (tmp_path / "bomb.gz").open("wb") as file:
        for _ in range(25):
            file.write(packer.compress(block))
        file.write(packer.flush())
    code = (
        "import resource, sys\n"
        "from spd_fast import nasbench101\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"try: nasbench101.convert({str(tmp_path / 'bomb.gz')!r}, {str(tmp_path / 'out.npz')!r}, strict=False)\n"
        "except ValueError as error: print(error)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said, megabytes = done.stdout.splitlines()
    assert (
        "no record could be read; the first fault: record 0, counted from 0, at byte 0: length fails its checksum"
        in said
    )
    assert int(megabytes) < 200  # a few pieces of 16 MB


@pytest.mark.skipif(os.name != "posix", reason="signals and limits as POSIX has them")
def test_kills_leave_the_old_table(tmp_path: Path) -> None:
    """Killed at many moments of the conversion, the table is the old one or the whole new one."""
    old = convert(files.write(tmp_path / "old.tfrecord", many(1)), tmp_path).path.read_bytes()
    source = files.write(tmp_path / "new.tfrecord", many(60))
    target = tmp_path / "table.npz"
    code = (
        "import sys; from spd_fast import nasbench101\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "while True: nasbench101.convert(sys.argv[1], sys.argv[2])\n"
    )
    new = nasbench101.convert(source, tmp_path / "new.npz").path.read_bytes()
    seen = Counter[str]()
    for i in range(12):
        target.write_bytes(old)
        with started([sys.executable, "-c", code, source, target]) as process:
            assert process.reaches(lambda process=process: process.out == "ready\n"), process.err
            process.say("go")
            time.sleep(0.002 * i * i)
            process.send(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL, process.err
        seen["old" if target.read_bytes() == old else "new" if target.read_bytes() == new else "half"] += 1
    assert seen["half"] == 0
    assert sum(seen.values()) == 12


def test_a_full_disk_leaves_the_old_table(tmp_path: Path) -> None:
    """Writing stops at every size from nothing to the whole table, as on a disk without space."""
    target = tmp_path / "table.npz"
    old = convert(files.write(tmp_path / "old.tfrecord", many(1)), tmp_path).path.read_bytes()
    source = files.write(tmp_path / "new.tfrecord", many(40))
    size = nasbench101.convert(source, tmp_path / "new.npz").path.stat().st_size
    code = (
        "import resource, signal, sys; from spd_fast import nasbench101\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"for limit in range(0, {size}, {size // 40}):\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))\n"
        "    try: nasbench101.convert(sys.argv[1], sys.argv[2])\n"
        "    except OSError as error: print(error.errno)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, source, target], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {str(errno.EFBIG)}
    assert len(done.stdout.split()) >= 40
    assert target.read_bytes() == old
    assert [path.name for path in tmp_path.glob(".*")] == []


# ---- tables


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return convert(files.write(tmp_path / "x.tfrecord", many(25)), tmp_path)


def test_columns_and_queries_agree(table: Table) -> None:
    assert repr(table) == "Table(25 cells, budgets 4, 108 epochs, 3 runs)"
    assert (len(table), table.budgets, table.runs) == (25, (4, 108), 3)
    for metric in METRICS:
        for halfway in (False, True):
            every = table.column(metric, epochs=4, repeat="all", halfway=halfway)
            mean = table.column(metric, epochs=4, halfway=halfway)
            assert (every.shape, every.dtype, mean.dtype) == ((25, 3), np.float32, np.float64)
            np.testing.assert_array_equal(mean, every.astype(float).sum(axis=1) / 3)
            for run in range(3):
                one = table.column(metric, epochs=4, repeat=run, halfway=halfway)
                assert np.array_equal(one, every[:, run])
                assert not one.flags.writeable
                assert [getattr(table.query(r, 4, run, halfway=halfway), metric) for r in range(25)] == one.tolist()
            for row, cell in enumerate(table):
                assert getattr(table.query(cell, 4, halfway=halfway), metric) == pytest.approx(mean[row], rel=1e-15)
    assert np.array_equal(table.column("test_accuracy"), table.column("test_accuracy", epochs=108))
    assert table.query(3) == table.query(table[3].module_hash, 108, "mean") == table.query(np.int64(3))
    assert table.rows(table[np.array([4, 2])]).tolist() == [4, 2]


def test_random_repeats_follow_from_the_generator(table: Table) -> None:
    drawn = [table.query(0, 4, np.random.default_rng(seed)) for seed in range(50)]
    runs = [table.query(0, 4, run) for run in range(3)]
    assert drawn == [table.query(0, 4, np.random.default_rng(seed)) for seed in range(50)]
    assert set(drawn) == set(runs)


def test_budgets_are_counted(table: Table) -> None:
    assert (table.training_time_spent, table.epochs_spent) == (0, 0)
    times = [table.query(0, 108, 1).training_time, table.query(1, 108, 2, halfway=True).training_time]
    table.column("test_accuracy")
    assert (table.training_time_spent, table.epochs_spent) == (pytest.approx(sum(times)), 162)
    table.reset_budget()
    assert (table.training_time_spent, table.epochs_spent) == (0, 0)


def test_queries_that_fail(table: Table) -> None:
    with pytest.raises(ValueError, match="metric is 'loss', expected 'training_time'"):
        table.column("loss")
    for ask in (table.column, table.query):
        with pytest.raises(ValueError, match="epochs is 12, expected a budget of this table: 4, 108"):
            ask("test_accuracy" if ask == table.column else 0, epochs=12)
    for repeat in (3, -1, "median"):
        with pytest.raises(ValueError, match=f"repeat is {repeat!r}, expected 0 to 2 or 'mean'"):
            table.column("test_accuracy", repeat=repeat)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=f"repeat is {repeat!r}, expected 0 to 2 or 'mean'"):
            table.query(0, repeat=repeat)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="epochs is '108', expected a budget of this table"):
        table.query(0, "108")  # type: ignore[arg-type]
    with pytest.raises(IndexError):
        table.query(25)
    with pytest.raises(ValueError, match=r"no cell of the table .*table\.npz has module_hash 0{32}"):
        table.query("0" * 32)
    assert (table.training_time_spent, table.epochs_spent) == (0, 0)


def test_cells_with_fewer_runs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = [files.random_values(rng) for _ in range(3)]
    payloads = [
        files.payload(CHAIN, 4, values[0]),
        files.payload(CHAIN, 4, values[1]),
        files.payload(DIAMOND, 12, values[2]),
    ]
    table = convert(files.write(tmp_path / "x.tfrecord", payloads), tmp_path)
    chain, diamond = table.row(CHAIN), table.row(DIAMOND)
    assert (table.budgets, table.runs) == (((4, 12)), 2)
    assert table.query(CHAIN, 4).test_accuracy == pytest.approx((values[0][1][3] + values[1][1][3]) / 2, rel=1e-15)
    assert list(table.query(DIAMOND, 12)) == values[2][1]
    assert list(table.query(DIAMOND, 12, np.random.default_rng(0))) == values[2][1]
    mean = table.column("test_accuracy", epochs=12)
    assert mean[diamond] == values[2][1][3]
    assert np.isnan(mean[chain])
    with pytest.raises(ValueError, match=f"cell {DIAMOND.module_hash} has no run 1 at 12 epochs"):
        table.query(DIAMOND, 12, 1)
    with pytest.raises(ValueError, match=f"cell {CHAIN.module_hash} has no run at 12 epochs"):
        table.query(CHAIN)
    with pytest.raises(ValueError, match=r"train_accuracy\[0, 0, 0\] is nan: 2 of 2 cells lack a run at some budget"):
        TruthTable.from_nasbench101(table)
    assert "2 cells, 2 runs at each of 4, 12 epochs" in table.describe()


def test_samples_have_no_cell_twice(table: Table) -> None:
    rows = table.sample(25, seed=3)
    assert sorted(rows.tolist()) == list(range(25))
    good = table.column("test_accuracy") > 0.5
    picked = table.sample(3, seed=3, where=good)
    assert good[picked].all()
    assert picked.tolist() == [row for row in rows.tolist() if good[row]][:3]
    assert TruthTable.from_nasbench101(table).sample(5, 3).hashes == tuple(cell.module_hash for cell in table[rows[:5]])


def test_tables_are_truths(table: Table) -> None:
    truth = TruthTable.from_nasbench101(table, accuracy_name="validation_accuracy", budget=4)
    assert np.allclose(truth.accuracy, table.column("validation_accuracy", epochs=4), rtol=1e-15)
    assert list(truth.cells) == list(table)
    assert "validation accuracy after 4 epochs, mean of 3 seeds" in truth.describe()


def test_pandas(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = table.to_pandas()
    assert list(frame.index) == [cell.module_hash for cell in table]
    assert np.array_equal(frame["test_accuracy_108"], table.column("test_accuracy"))
    assert np.array_equal(frame["trainable_parameters"], table.trainable_parameters)
    monkeypatch.setitem(sys.modules, "pandas", None)  # the tests need it: Python is told that it is not there
    with pytest.raises(
        ImportError, match=r"to_pandas needs pandas, which is not installed: pip install 'spd_fast\[tables\]'"
    ):
        table.to_pandas()


def test_numpy_alone_reads_a_table(table: Table) -> None:
    with np.load(table.path) as archive:
        assert set(METRIC_COLUMNS) < set(archive.files)
        assert np.array_equal(archive["final_test_accuracy"][1, 2], table.column("test_accuracy", repeat=2))
        for name in archive.files:
            assert archive[name].dtype.kind in "iufU"


def test_columns_lie_on_boundaries(table: Table) -> None:
    measured = (
        table.column(metric, epochs=table.budgets[0], repeat="all", halfway=halfway)
        for metric in METRICS
        for halfway in (False, True)
    )
    for array in (table.module_hash, table.edge_bits, *measured):
        assert array.__array_interface__["data"][0] % 64 == 0


def rewritten(table: Table, **changes: Any) -> Path:
    from spd_fast.base.files import save_mappable

    with np.load(table.path) as archive:
        arrays = {name: archive[name] for name in archive.files} | changes
    path = table.path.with_name("changed.npz")
    save_mappable(path, [(name, array) for name, array in arrays.items() if array is not None])
    return path


def test_files_that_are_no_tables(table: Table, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"table .*absent\.npz does not exist"):
        nasbench101.open(tmp_path / "absent.npz")
    with pytest.raises(ValueError, match=r"x\.tfrecord is not an \.npz file, or was cut short"):
        nasbench101.open(tmp_path / "x.tfrecord")
    with pytest.raises(IsADirectoryError):
        nasbench101.open(tmp_path)
    np.savez(tmp_path / "other.npz", images=np.zeros(3))
    with pytest.raises(
        ValueError, match=r"has schema None, expected 'spd_fast.nasbench101/2': make it from an official"
    ):
        nasbench101.open(tmp_path / "other.npz")
    np.savez_compressed(tmp_path / "packed.npz", images=np.zeros(3))
    with pytest.raises(ValueError, match="is damaged or cannot be mapped: images is compressed"):
        nasbench101.open(tmp_path / "packed.npz")
    np.savez(tmp_path / "objects.npz", images=np.array([None]))
    with pytest.raises(ValueError, match="images holds Python objects"):
        nasbench101.open(tmp_path / "objects.npz")
    with pytest.raises(ValueError, match=r"has schema 'spd_fast.nasbench101/9'"):
        nasbench101.open(rewritten(table, schema=np.array("spd_fast.nasbench101/9")))
    with pytest.raises(ValueError, match=r"edge_bits is uint64 \(25,\), expected uint32 \(25,\)"):
        nasbench101.open(rewritten(table, edge_bits=table.edge_bits.astype(np.uint64)))
    with pytest.raises(ValueError, match="halfway_test_accuracy is missing, expected float32"):
        nasbench101.open(rewritten(table, halfway_test_accuracy=None))
    with pytest.raises(TypeError, match="array 'provenance' has dtype object, expected numbers"):
        rewritten(table, provenance=np.array([None]))


def test_every_truncation_of_a_table(table: Table, tmp_path: Path) -> None:
    whole = table.path.read_bytes()
    for length in range(0, len(whole), 97):
        (tmp_path / "cut.npz").write_bytes(whole[:length])
        with pytest.raises(
            ValueError, match=r"cut\.npz is (not an \.npz file, or was cut short|damaged or cannot be mapped)"
        ):
            nasbench101.open(tmp_path / "cut.npz")


def test_headers_that_lie(table: Table, tmp_path: Path) -> None:
    whole = table.path.read_bytes()
    (tmp_path / "a.npz").write_bytes(whole.replace(b"'shape': (25,)", b"'shape': (99,)", 1))
    with pytest.raises(ValueError, match="has another length than its header says"):
        nasbench101.open(tmp_path / "a.npz")
    (tmp_path / "b.npz").write_bytes(whole.replace(b"\x93NUMPY\x01", b"\x93NUMPY\x09", 1))
    with pytest.raises(ValueError, match=r"schema is not an array of format 1\.0 or 2\.0"):
        nasbench101.open(tmp_path / "b.npz")


def test_verify(table: Table, tmp_path: Path) -> None:
    table.verify()
    damaged = bytearray(table.path.read_bytes())
    damaged[damaged.index(table.column("test_accuracy", repeat=0).tobytes()[:40])] ^= 1
    (tmp_path / "damaged.npz").write_bytes(damaged)
    with pytest.raises(ValueError, match="is damaged or holds more than plain arrays"):
        nasbench101.open(tmp_path / "damaged.npz").verify()
    hashes = table.module_hash.copy()
    hashes[7, 15] ^= 1
    with pytest.raises(ValueError, match=r"1 rows have a hash that is not that of their graph, the first is row 7 \("):
        nasbench101.open(rewritten(table, module_hash=hashes)).verify()
    with pytest.raises(ValueError, match="row 1 is not in ascending order of hashes"):
        nasbench101.open(rewritten(table, module_hash=table.module_hash[::-1].copy())).verify()


def test_tables_that_are_used_as_truth_are_what_was_written(tmp_path: Path) -> None:
    """A bit of many bytes of a file, and of every one of the accuracies: it is refused, or gives every accuracy, cell and setting that was written."""
    cells = [CHAIN, DIAMOND]
    payloads = [files.payload(cell, 4, files.random_values(np.random.default_rng(k))) for k, cell in enumerate(cells)]
    path = nasbench101.convert(files.write(tmp_path / "x.tfrecord", payloads), tmp_path / "x.npz").path

    def used() -> list[Any]:
        truth = TruthTable.load(path)
        measured = {name: np.asarray(values).tobytes() for name, values in truth.measurements.items()}
        return [measured, list(truth.cells), truth.hashes, truth.budgets, truth.seeds, truth.describe()]

    whole, known = path.read_bytes(), used()
    refused = 0
    at = whole.index(nasbench101.open(path).column("test_accuracy", repeat=0).tobytes())
    positions = [*range(at, at + 8), *range(0, len(whole), 5)]
    for position in positions:
        flipped = bytearray(whole)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(flipped)
        try:
            assert used() == known
        except ValueError as error:
            if str(path) not in str(error):
                raise
            refused += 1
    assert refused > len(positions) / 2


def test_truths_of_damaged_tables(table: Table, tmp_path: Path) -> None:
    """What is looked up is not compared, so that opening takes no time; what a dish is fitted to is."""
    damaged = bytearray(table.path.read_bytes())
    damaged[damaged.index(table.column("test_accuracy", repeat=1).tobytes()[:40])] ^= 1
    (tmp_path / "damaged.npz").write_bytes(damaged)
    opened = nasbench101.open(tmp_path / "damaged.npz")
    with pytest.raises(
        ValueError, match=r"damaged\.npz is damaged: final_test_accuracy has checksum .*copy or make it anew"
    ):
        TruthTable.from_nasbench101(opened)
    with np.load(table.path) as archive:
        np.savez(tmp_path / "theirs.npz", **archive)
    with pytest.raises(ValueError, match=r"theirs\.npz does not list its columns: another program wrote it"):
        nasbench101.open(tmp_path / "theirs.npz")


def test_opening_is_quick_and_small(table: Table) -> None:
    """In a fresh interpreter; best of three. A full table's figures are in bench/results."""
    code = (
        "import sys, time\n"
        "import spd_fast, numpy\n"
        "from spd_fast import nasbench101\n"
        "start = time.perf_counter()\n"
        "nasbench101.open(sys.argv[1]).query(0)\n"
        "print(time.perf_counter() - start, [m for m in ('torch', 'numba', 'pandas', 'pydantic') if m in sys.modules])\n"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code, table.path], capture_output=True, text=True, check=True).stdout
        for _ in range(3)
    ]
    assert all(run.endswith("[]\n") for run in runs)
    assert min(float(run.split()[0]) for run in runs) < 0.15


# ---- the official interface


def spec(cell: Cell) -> api.ModelSpec:
    return api.ModelSpec(cell.matrix, list(cell.ops))


def test_official_interface(table: Table) -> None:
    bench = api.NASBench(table.path, seed=4)
    draws = random.Random(4)
    for cell in table[:10]:
        run = draws.randint(0, 2)
        found = bench.query(spec(cell), epochs=4, stop_halfway=int(cell.n_edges > 5))  # as the official code takes it
        expected = table.query(cell, 4, run, halfway=cell.n_edges > 5)
        assert np.array_equal(found.pop("module_adjacency"), cell.matrix)
        assert found.pop("module_operations") == list(cell.ops)
        assert found.pop("trainable_parameters") == 1000
        assert found == expected._asdict()
    assert bench.get_budget_counters() == (pytest.approx(table.training_time_spent), table.epochs_spent)
    bench.reset_budget_counters()
    assert bench.get_budget_counters() == (0, 0)
    assert list(bench.hash_iterator()) == [cell.module_hash for cell in table]
    assert bench.valid_epochs == {4, 108}
    fixed, computed = bench.get_metrics_from_spec(spec(table[3]))
    assert fixed["module_operations"] == list(table[3].ops)
    assert [run["final_test_accuracy"] for run in computed[108]] == [
        table.query(3, 108, run).test_accuracy for run in range(3)
    ]
    assert set(computed[4][0]) == set(METRIC_COLUMNS)
    assert len(bench.fixed_statistics) == len(list(bench.computed_statistics)) == 25
    assert bench.computed_statistics[table[3].module_hash] == computed
    assert bench.fixed_statistics[table[3].module_hash]["trainable_parameters"] == 1000
    with pytest.raises(KeyError, match="0000"):
        bench.fixed_statistics["0" * 32]
    with pytest.raises(api.OutOfDomainError, match=r"invalid number of epochs 12, must be one of \[4, 108\]"):
        bench.query(spec(table[0]), epochs=12)
    assert len(bench.hash_iterator()) == len(list(bench.hash_iterator())) == 25
    assert table[3].module_hash in bench.hash_iterator()
    assert "0" * 32 not in bench.hash_iterator()
    assert 3 not in bench.hash_iterator()
    assert fixed["module_adjacency"].dtype == np.int8
    assert (bench.training_time_spent, bench.total_epochs_spent) == (0, 0)
    bench.query(spec(table[0]), epochs=4)
    assert (bench.training_time_spent, bench.total_epochs_spent) == bench.get_budget_counters()
    bench.training_time_spent, bench.total_epochs_spent = 0.0, 0  # as scripts reset the official object's
    assert bench.get_budget_counters() == (0, 0)
    for no_hash in (1, None, b"0" * 32):
        assert bench.fixed_statistics.get(no_hash) is None  # type: ignore[call-overload]
        with pytest.raises(KeyError, match=r"module_hash is .*, expected 32 hexadecimal digits"):
            bench.computed_statistics[no_hash]  # type: ignore[index]
    with pytest.raises(KeyError, match="no cell of the table"):
        bench.get_metrics_from_hash("0" * 32)
    for notation in (spec(table[3]), table[3].to_json(), bench.fixed_statistics[table[3].module_hash]):
        assert table.row(notation) == 3
        assert table.query(notation) == table.query(3)
    with pytest.raises(api.OutOfDomainError, match="no cell of the table"):
        bench.query(spec(Cell(np.eye(7, k=1, dtype=int), ["input", *[OPS[2]] * 5, "output"])))


def official_hash(matrix: Any, labels: list[int]) -> str:
    """The rule of the official `hash_module`, written on whole matrices."""

    def md5(text: str) -> str:
        return hashlib.md5(text.encode()).hexdigest()

    degrees = zip(matrix.sum(axis=1).tolist(), matrix.sum(axis=0).tolist(), labels, strict=True)
    hashes = np.array([md5(str(each)) for each in degrees])
    for _ in labels:
        ends = [
            "".join(sorted(hashes[matrix[:, v] > 0])) + "|" + "".join(sorted(hashes[matrix[v] > 0]))
            for v in range(len(labels))
        ]
        hashes = np.array([md5(f"{end}|{own}") for end, own in zip(ends, hashes, strict=True)])
    return md5(str(sorted(hashes.tolist())))


def test_official_specs() -> None:
    pruned = api.ModelSpec(
        [[0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]], ["input", OPS[1], OPS[2], "output"]
    )
    assert pruned.valid_spec
    assert pruned.ops == ["input", OPS[1], "output"]
    assert pruned.matrix is not None
    assert pruned.matrix.tolist() == [[0, 1, 0], [0, 0, 1], [0, 0, 0]]
    assert pruned.original_ops == ["input", OPS[1], OPS[2], "output"]
    assert pruned.hash_spec(list(OPS)) == Cell(pruned.matrix, pruned.ops).module_hash
    assert pruned.hash_spec([OPS[1], OPS[0], OPS[2]]) == CHAIN.module_hash
    loose = api.ModelSpec([[0, 0], [0, 0]], ["input", "output"])
    assert not loose.valid_spec
    assert loose.ops is None
    with pytest.raises(api.OutOfDomainError, match="has no path from input to output, or an operation that is"):
        loose.hash_spec(list(OPS))
    with pytest.raises(api.OutOfDomainError, match="has no path from input to output, or an operation that is"):
        pruned.hash_spec(["relu"])
    for refused in (lambda: loose.hash_spec(list(OPS)), lambda: pruned.hash_spec(["relu"])):
        with pytest.raises((TypeError, ValueError), match="it has no hash"):
            refused()
    large = api.ModelSpec(np.triu(np.ones((9, 9), int), 1), ["input", *["a", "b"] * 3, "a", "output"])
    assert large.hash_spec(["a", "b"]) == official_hash(large.matrix, [-1, 0, 1, 0, 1, 0, 1, 0, -2])
    assert not api.ModelSpec([[0]], ["input"]).valid_spec
    with pytest.raises(ValueError, match=r"matrix must be square, got shape \(1, 2\)"):
        api.ModelSpec([[0, 1]], ["input"])
    with pytest.raises(ValueError, match="length of ops must match matrix dimensions, got 1 and 2"):
        api.ModelSpec([[0, 1], [0, 0]], ["input"])
    with pytest.raises(ValueError, match="matrix must be upper triangular"):
        api.ModelSpec([[0, 1], [1, 0]], ["input", "output"])
    for entry in (2, -1, 0.5, np.nan):
        with pytest.raises(ValueError, match=rf"matrix\[0\]\[1\] is {entry}, must be 0 or 1"):
            api.ModelSpec([[0, entry], [0, 0]], ["input", "output"])


def test_official_validity(table: Table) -> None:
    bench = api.NASBench(table.path)
    dense = np.triu(np.ones((6, 6), int), 1)
    assert bench.is_valid(spec(CHAIN))
    assert not bench.is_valid(api.ModelSpec(dense, ["input", *[OPS[0]] * 4, "output"]))
    assert not bench.is_valid(api.ModelSpec([[0, 0], [0, 0]], ["input", "output"]))
    assert not bench.is_valid(api.ModelSpec([[0, 1], [0, 0]], ["output", "input"]))
    assert bench.is_valid(spec(Cell(np.eye(7, k=1, dtype=int), ["input", *[OPS[2]] * 5, "output"])))  # not in the table
    for ops, words in (
        (["input", "relu", "output"], "unsupported op relu"),
        ([OPS[0], OPS[0], "output"], "operation 0 is"),
    ):
        odd = api.ModelSpec(CHAIN.matrix, ops)
        assert not bench.is_valid(odd)
        with pytest.raises(api.OutOfDomainError, match=words):
            bench.get_metrics_from_spec(odd)
    long = api.ModelSpec(np.eye(8, k=1, dtype=int), ["input", *[OPS[2]] * 6, "output"])
    assert not bench.is_valid(long)
    with pytest.raises(api.OutOfDomainError, match="too many vertices, got 8"):
        bench.query(long)
    with pytest.raises(api.OutOfDomainError, match="invalid number of epochs '108'"):
        bench.query(spec(CHAIN), epochs="108")  # type: ignore[arg-type]
    with pytest.raises(api.OutOfDomainError, match="15 edges"):
        bench.query(api.ModelSpec(dense, ["input", *[OPS[0]] * 4, "output"]))
    with pytest.raises(api.OutOfDomainError, match="provided graph is disconnected"):
        bench.query(api.ModelSpec([[0, 0], [0, 0]], ["input", "output"]))


def test_official_files_are_converted_once(tmp_path: Path) -> None:
    source = files.write(tmp_path / "nasbench.tfrecord", many(5))
    first = api.NASBench(source)
    table = tmp_path / "nasbench.tfrecord.npz"
    assert first.table.path == table
    stamp = table.stat().st_mtime_ns
    assert api.NASBench(source).query(spec(first.table[0])).keys() >= {"test_accuracy"}
    assert table.stat().st_mtime_ns == stamp
    os.utime(source, ns=(stamp + 10**9, stamp + 10**9))
    api.NASBench(source)
    assert table.stat().st_mtime_ns != stamp


# ---- fuzzing


def test_hostile_bytes_under_sanitizers(tmp_path: Path, project_dir: Path) -> None:
    """A hundred thousand mutated inputs, with the compiler's sanitizers; `make fuzz` runs libFuzzer for as long as wanted."""
    compiler = os.environ.get("CXX") or shutil.which("c++")
    assert compiler is not None
    folder = project_dir / "tests" / "fuzz"
    binary = tmp_path / "fuzz"
    sources = [
        folder / "fuzz_tfrecord.cpp",
        *(project_dir / "csrc" / "nasbench" / f"{n}.cpp" for n in ("space", "table", "tfrecord")),
    ]
    flags = ["-std=c++20", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-Wno-psabi"]
    built = subprocess.run(
        [*compiler.split(), *flags, *sources, "-o", binary], capture_output=True, text=True, check=False
    )
    if "cannot find -lasan" in built.stderr or "libclang_rt.asan" in built.stderr:
        pytest.skip("this compiler came without its sanitizers")
    assert built.returncode == 0, built.stderr
    seeds = write_seeds(tmp_path / "seeds")
    run = subprocess.run([binary, "100000", "1", *seeds], capture_output=True, text=True, check=False, timeout=600)
    assert (run.returncode, run.stdout) == (0, "100000 inputs\n"), run.stderr


def write_seeds(folder: Path, real: Sequence[Path] = ()) -> list[Path]:
    """Inputs of the three kinds that tests/fuzz/fuzz_tfrecord.cpp takes, made up and from real files."""
    folder.mkdir()
    payloads = many(4, epochs=(4,), runs=2)
    inputs = [b"\x00\x07" + b"".join(map(files.frame, payloads[:n])) for n in (1, 3, 8)]
    inputs += [b"\x01\x00" + payload for payload in payloads[:4]]
    inputs += [b"\x02\x00" + base64.b64decode(json.loads(payload)[4]) for payload in payloads[:4]]
    inputs += [b"\x02\x00" + message(START, HALF, END, more=b"\x53\x54\x55\x00\x00\x00\x00")]
    for source in real:
        inputs.append(b"\x00\x07" + source.read_bytes()[:4000])
        for row in files.unframed(source.read_bytes()):
            inputs += [b"\x01\x00" + json.dumps(row).encode(), b"\x02\x00" + base64.b64decode(row[4])]
    paths = [folder / str(i) for i in range(len(inputs))]
    for path, data in zip(paths, inputs, strict=True):
        path.write_bytes(data)
    return paths
