"""The bench of NAS-Bench-101's files: conversion, opening, queries and enumeration, beside other programs that read these files.

The script first makes a file of full size in the format of the official files, with valid checksums. It holds every cell of the space with
its official hash, matrix and number of parameters, and random metrics. Then every figure is measured in a process of its own, and its
result is verified.

    python bench/nasbench.py --folder /tmp/nb                # nasbench_only108: 1,270,872 records, 0.5 GB
    python bench/nasbench.py --folder /tmp/nb --kind full    # 5,083,488 records, 2 GB
"""

# ruff: noqa: E402 -- the search path is set before the package is imported

import argparse
import base64
import gc
import importlib
import json
import os
import pickle
import platform
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "tests"), str(HERE.parent / "tests" / "nasbench101"), str(HERE.parent)]

import numpy as np

import nasbench_files as files
from spd_fast import _core, nasbench101
from spd_fast._core import nasbench as native
from spd_fast.spaces.cell import OPS

BUDGETS = {"only108": (108,), "full": (4, 12, 36, 108)}
RUNS = 3
CELLS = 423_624
FIGURES = ["convert", "open", "query", "enumerate"]
MESSAGE = struct.Struct("<" + "BB" + "BdBdBdBdBd" + "BB" + "BdBdBdBdBd" + "BB" + "BdBdBdBdBd")
PEER_RECORDS = 40_000


def main() -> None:
    arguments = parse_arguments()
    os.sched_setaffinity(0, set(arguments.cores))
    arguments.folder.mkdir(parents=True, exist_ok=True)
    source = arguments.folder / f"nasbench_{arguments.kind}.tfrecord"
    expected = len(BUDGETS[arguments.kind]) * RUNS * arguments.cells
    if not source.exists():
        print(f"making {source} ...", flush=True)
        make_file(source, BUDGETS[arguments.kind], arguments.cells)
    table = source.with_suffix(".npz")
    record: dict[str, Any] = describe_run(arguments) | {"records": expected, "bytes": source.stat().st_size}
    results: dict[str, Any] = {}
    for name in arguments.figures:
        found = [
            in_process(name, source, table, arguments.queries) for _ in range(5 if name == "open" else arguments.rounds)
        ]
        results[name] = {key: summary([each[key] for each in found]) for key in found[0]}
        print(name, json.dumps(results[name]), flush=True)
    results["table_bytes"] = table.stat().st_size
    if arguments.peers:
        for name in ("protobuf", "tfrecord", "tensorflow", "nasbenchapi", "containers"):
            try:
                results[name] = in_process(name, source, table, arguments.queries)
            except subprocess.CalledProcessError as error:
                results[name] = error.stderr.strip().splitlines()[-1]
            print(name, json.dumps(results[name]), flush=True)
    record["results"] = results
    out = (
        arguments.out
        or HERE / "results" / f"nasbench-{arguments.kind}-{record['date'][:10]}-{record['commit'][:7]}.json"
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, indent=1) + "\n")
    print(f"written to {out}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="folder for the file and the table, which both stay")
    parser.add_argument(
        "--kind", choices=BUDGETS, default="only108", help="which official file to make (default: only108)"
    )
    parser.add_argument(
        "--cells",
        type=int,
        default=CELLS,
        help=f"number of cells in the file, the first of the space (default: {CELLS:,})",
    )
    parser.add_argument(
        "--figures", nargs="+", choices=FIGURES, default=FIGURES, help=f"what to measure (default: {' '.join(FIGURES)})"
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="how often each figure is measured; open is measured 5 times (default: 3)"
    )
    parser.add_argument(
        "--queries", type=int, default=1_000_000, help="number of queries that are timed together (default: 1,000,000)"
    )
    parser.add_argument(
        "--cores",
        type=lambda text: [int(core) for core in text.split(",")],
        default=[0, 1],
        help="processors to run on (default: 0,1)",
    )
    parser.add_argument("--no-peers", dest="peers", action="store_false", help="do not measure other programs")
    parser.add_argument("--out", type=Path, help="JSON file (default: bench/results/nasbench-KIND-DATE-COMMIT.json)")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--table", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--source", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    return arguments


def make_file(path: Path, budgets: tuple[int, ...], cells: int) -> None:
    """Write a file of the first cells of the space, with random metrics."""
    space = nasbench101.enumerate_space()
    rng = np.random.default_rng(0)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as out:
        for row in range(cells):
            n, bits, codes = int(space.vertices[row]), int(space.edge_bits[row]), int(space.op_codes[row])
            adjacency = "".join(
                str(int(x < y and bits >> x + y * (y - 1) // 2 & 1)) for x in range(n) for y in range(n)
            )
            ops = ",".join(["input", *(OPS[codes >> 2 * i & 3] for i in range(n - 2)), "output"])
            module_hash = space.module_hash[row].tobytes().hex()
            tail = b"\x10" + files.varint(int(space.trainable_parameters[row]))
            values = rng.random((len(budgets), RUNS, 3, 4), dtype=np.float32).astype(float)
            for epochs, runs in zip(budgets, values.tolist(), strict=True):
                for start, half, end in runs:
                    message = MESSAGE.pack(
                        *evaluation(0, start), *evaluation(epochs / 2, half), *evaluation(epochs, end)
                    )
                    encoded = base64.encodebytes(message + tail + b"\x19" + struct.pack("<d", end[0])).decode()
                    payload = json.dumps([module_hash, epochs, adjacency, ops, encoded]).encode()
                    out.write(files.frame(payload, native.crc32c))
    partial.rename(path)


def evaluation(epoch: float, values: list[float]) -> list[float]:
    time_, train, valid, test = values
    return [0x0A, 45, 0x09, epoch, 0x11, 1000 * time_, 0x19, train, 0x21, valid, 0x29, test]


# ---- figures, each in a process of its own


def in_process(name: str, source: Path, table: Path, queries: int) -> dict[str, Any]:
    command = [
        sys.executable,
        __file__,
        "--folder",
        str(source.parent),
        "--one",
        name,
        "--source",
        str(source),
        "--table",
        str(table),
        "--queries",
        str(queries),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def clocks(action: Callable[[], object]) -> dict[str, float]:
    before, wall = os.times(), time.perf_counter()
    action()
    after = os.times()
    return {
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": after.user - before.user + after.system - before.system,
    }


def peak_megabytes() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def resident_megabytes() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def bench_convert(source: Path, table: Path) -> dict[str, float]:
    found = clocks(lambda: nasbench101.convert(source, table))
    peak = peak_megabytes()
    made = nasbench101.open(table)
    space = nasbench101.enumerate_space()
    for name in ("module_hash", "vertices", "edge_bits", "op_codes", "trainable_parameters"):
        assert np.array_equal(getattr(made, name), getattr(space, name)[: len(made)]), name
    rng = np.random.default_rng(0)
    first = rng.random((len(made.budgets), RUNS, 3, 4), dtype=np.float32)
    for b, epochs in enumerate(made.budgets):
        for run in range(RUNS):
            assert made.query(0, epochs, run).test_accuracy == first[b, run, 2, 3]
    return found | {"peak_megabytes": peak, "gigabytes_per_second": source.stat().st_size / 1e9 / found["seconds"]}


def bench_open(source: Path, table: Path) -> dict[str, float]:
    """Measure opening and one query, with interpreter, numpy and this package loaded and the file in the system's cache."""
    wanted = "00005c142e6f48ac74fdcf73e3439874"
    before = resident_megabytes()
    found = clocks(lambda: nasbench101.open(table).query(wanted))
    return found | {"resident_megabytes_more": resident_megabytes() - before}


def bench_query(source: Path, table: Path, queries: int) -> dict[str, float]:
    opened = nasbench101.open(table)
    rows = np.random.default_rng(1).integers(0, len(opened), queries)
    hashes = [opened.module_hash[row].tobytes().hex() for row in rows]
    listed = rows.tolist()
    got: dict[str, Any] = {}

    def vectorised() -> None:
        got["vectorised"] = opened.column("test_accuracy", repeat=0)[rows]

    def by_row() -> None:
        got["by_row"] = [opened.query(row, 108, 0).test_accuracy for row in listed]

    def by_hash() -> None:
        got["by_hash"] = [opened.query(module_hash, 108, 0).test_accuracy for module_hash in hashes]

    def one_metric() -> None:
        read, find = opened.column("test_accuracy", repeat=0).item, opened.row
        got["one_metric"] = [read(find(module_hash)) for module_hash in hashes]

    found = {}
    for action in (vectorised, by_row, by_hash, one_metric):
        found |= {f"{action.__name__}_{clock}": spent for clock, spent in clocks(action).items()}
    for name in ("by_row", "by_hash", "one_metric"):
        assert np.array_equal(got["vectorised"], got[name]), name
    return found


def bench_enumerate(source: Path, table: Path) -> dict[str, float]:
    found = clocks(nasbench101.enumerate_space)
    return found | {"peak_megabytes": peak_megabytes()}


def bench_protobuf(source: Path, table: Path) -> dict[str, Any]:
    """Measure what the official reader does, without TensorFlow: JSON, base64 and protobuf for each record. Checksums are not
    compared."""
    return peer(source, raw_records)


def bench_tfrecord(source: Path, table: Path) -> dict[str, Any]:
    """Measure the same with the iterator of the PyPI package tfrecord."""
    from tfrecord.reader import tfrecord_iterator  # type: ignore[import-not-found, unused-ignore]

    return peer(source, lambda path: (bytes(record) for record in tfrecord_iterator(str(path))))


def bench_tensorflow(source: Path, table: Path) -> dict[str, Any]:
    """Measure what the official reader does, with TensorFlow's iterator, which compares checksums; and TensorFlow's import."""
    loaded_api: dict[str, Any] = {}

    def load() -> None:
        loaded_api["read"] = importlib.import_module("tensorflow").compat.v1.io.tf_record_iterator

    before = resident_megabytes()
    loading = clocks(load)
    loaded = {f"import_{clock}": spent for clock, spent in loading.items()}
    loaded["import_megabytes"] = resident_megabytes() - before
    return peer(source, lambda path: loaded_api["read"](str(path))) | loaded


def bench_nasbenchapi(source: Path, table: Path) -> dict[str, Any]:
    """Measure the PyPI package nasbenchapi: a pickle with everything that its reader uses is made, loaded and queried once."""
    from nasbenchapi import NASBench101  # type: ignore[import-not-found, unused-ignore]

    entries: dict[str, list[dict[str, Any]]] = {}
    for _, payload in zip(range(PEER_RECORDS), raw_records(source), strict=False):
        module_hash, epochs, adjacency, ops, encoded = json.loads(payload)
        record = {
            "epoch": epochs,
            "adjacency_str": adjacency,
            "operations_str": ops,
            "metrics_b64": encoded,
            "derived": {},
        }
        entries.setdefault(module_hash, []).append(record)
    latest = {module_hash: records[-1] for module_hash, records in entries.items()}
    made = source.parent / "nasbenchapi.pickle"
    content = {"entries_by_arch": entries, "latest_by_arch": latest, "num_records": PEER_RECORDS}
    made.write_bytes(pickle.dumps(content))
    del content, entries, latest
    gc.collect()
    loaded: dict[str, Any] = {}

    def load() -> None:
        loaded["api"] = NASBench101(str(made), verbose=False)

    before = resident_megabytes()
    found = scaled(source, clocks(load), before)
    api = loaded["api"]
    (arch,) = api.random_sample(1, seed=0)
    found["first_query_milliseconds"] = 1000 * clocks(lambda: api.query(arch))["seconds"]
    return found | {"pickle_gigabytes_for_the_file": made.stat().st_size / PEER_RECORDS * records_in(source) / 1e9}


def raw_records(path: Path) -> Any:
    with path.open("rb") as file:
        while head := file.read(12):
            yield file.read(struct.unpack_from("<Q", head)[0])
            file.read(4)


def records_in(source: Path) -> float:
    return source.stat().st_size / (
        sum(len(r) + 16 for _, r in zip(range(1000), raw_records(source), strict=False)) / 1000
    )


def scaled(source: Path, found: dict[str, float], megabytes_before: float) -> dict[str, Any]:
    """Return what reading `PEER_RECORDS` records took, and what the whole file would take."""
    per_record = found["cpu_seconds"] / PEER_RECORDS
    total = records_in(source)
    return {
        "records_read": PEER_RECORDS,
        "microseconds_per_record": per_record * 1e6,
        "seconds_for_the_file": per_record * total,
        "gigabytes_for_the_file": (resident_megabytes() - megabytes_before) / PEER_RECORDS * total / 1024,
    }


def peer(source: Path, records: Callable[[Path], Any]) -> dict[str, Any]:
    from test_nasbench101 import message_class

    data = Path(os.environ.get("SPD_FAST_DATA", HERE.parent.parent / "shared" / "data"))
    kind = message_class(data / "nb101/tfrecord/model_metrics.proto")
    cells: dict[str, Any] = {}

    def read() -> None:
        for i, payload in enumerate(records(source)):
            if i == PEER_RECORDS:
                break
            module_hash, epochs, adjacency, ops, encoded = json.loads(payload)
            message = kind.FromString(base64.b64decode(encoded))
            cell = cells.setdefault(
                module_hash, {"matrix": [int(c) for c in adjacency], "ops": ops.split(","), "runs": {}}
            )
            halfway, final = message.evaluation_data[1:3]
            cell["runs"].setdefault(epochs, []).append(
                {
                    f"{moment}_{m}": getattr(e, m)
                    for moment, e in (("halfway", halfway), ("final", final))
                    for m in files.METRICS
                }
            )

    before = resident_megabytes()
    return scaled(source, clocks(read), before)


def bench_containers(source: Path, table: Path) -> dict[str, Any]:
    """Measure, for several file formats with the same columns, the milliseconds and megabytes that a fresh interpreter with
    numpy takes to read one number."""
    import pyarrow  # type: ignore[import-not-found, unused-ignore]
    import pyarrow.parquet  # type: ignore[import-not-found, unused-ignore]

    with np.load(table) as archive:
        columns = {
            f"{name}_{b}_{run}": archive[name][b, run]
            for name in archive.files
            if name.startswith(("halfway", "final"))
            for b in range(archive[name].shape[0])
            for run in range(RUNS)
        }
    arrow = pyarrow.table(columns)
    import pyarrow.feather  # type: ignore[import-not-found, unused-ignore]

    base = source.parent / "containers"
    base.mkdir(exist_ok=True)
    pyarrow.feather.write_feather(arrow, base / "t.feather", compression="uncompressed")
    pyarrow.parquet.write_table(arrow, base / "t.parquet")
    for name, values in columns.items():
        np.save(base / f"{name}.npy", values)
    last = "final_test_accuracy_0_0"
    codes = {
        "this table": f"from spd_fast.base.files import map_arrays; x = map_arrays({str(table)!r}, what='t')['final_test_accuracy'][0, 0][7]",
        "folder of .npy": f"x = np.load({str(base / (last + '.npy'))!r}, mmap_mode='r')[7]",
        "feather": f"import pyarrow.feather as f; x = f.read_table({str(base / 't.feather')!r}, memory_map=True)[{last!r}][7].as_py()",
        "parquet": f"import pyarrow.parquet as f; x = f.read_table({str(base / 't.parquet')!r}, columns=[{last!r}])[{last!r}][7].as_py()",
    }
    found = {}
    for name, code in codes.items():
        script = (
            "import os, time, numpy as np\nfrom pathlib import Path\n"
            "m = lambda: int(Path('/proc/self/statm').read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 2**20\n"
            f"a, t = m(), time.perf_counter()\n{code}\nprint(time.perf_counter() - t, m() - a, float(x))"
        )
        runs = [
            subprocess.run(
                [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=HERE.parent
            ).stdout.split()
            for _ in range(5)
        ]
        assert len({run[2] for run in runs}) == 1
        found[name] = {
            "milliseconds": 1000 * statistics.median(float(run[0]) for run in runs),
            "megabytes_more": statistics.median(float(run[1]) for run in runs),
        }
    return found


# ---- record


def summary(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values)}


def describe_run(arguments: argparse.Namespace) -> dict[str, Any]:
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=HERE, capture_output=True, text=True, check=False)
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "",
    )
    return {
        "bench": "nasbench",
        "kind": arguments.kind,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": git.stdout.strip() or "unknown",
        "cpu": cpu or platform.machine(),
        "cores": arguments.cores,
        "load_average_at_start": os.getloadavg()[0],
        "compiler": _core.compiler,
        "python": platform.python_version(),
        "crc32c_instruction": native.crc32c_has_instruction(),
    }


if __name__ == "__main__":
    if "--one" in sys.argv:
        given = parse_arguments()
        more = (given.queries,) if given.one == "query" else ()
        print(json.dumps(globals()[f"bench_{given.one}"](given.source, given.table, *more)))
    else:
        main()
