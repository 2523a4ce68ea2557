"""The benches: that they verify before they time, count what they say, and leave a record."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from spd_fast import MOTIF_B, MOTIF_C, Cell, Dish, NatsCell, _core, cli, count_flops, count_parameters
from spd_fast.bench import hypergradient, inner, kernels, peak, profile, proxies, score
from spd_fast.bench import record as records
from spd_fast.engine.initial import initial_parameters
from spd_fast.engine.probes import step_profile
from spd_fast.predictors.proxies import PROXIES
from spd_fast.report import speed
from spd_fast.spaces.cell_files import random_cells

PNG = b"\x89PNG\r\n\x1a\n"
CELLS = records.bench_cells()
EDGES = NatsCell.parse(
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|avg_pool_3x3~0|nor_conv_1x1~1|skip_connect~2|"
)


def call(folder: Path, *arguments: object) -> tuple[str, dict[str, Any]]:
    """Run a bench by the command line; return what it prints and its record."""
    result = CliRunner().invoke(cli.app, ["bench", *map(str, arguments), "--out", str(folder)])
    assert result.exit_code == 0, result.output
    (written,) = folder.glob("*.json")
    (figure,) = folder.glob("*.png")
    assert figure.read_bytes().startswith(PNG)
    return result.stdout, json.loads(written.read_text())


def described(record: dict[str, Any], bench: str) -> None:
    assert record["bench"] == bench
    assert set(record) >= {"date", "commit", "machine"}
    assert set(record["machine"]) >= {"processor", "instruction_set", "compiler", "flags", "load_average_at_start"}


def test_the_cells_are_twelve_and_spread_over_the_flops() -> None:
    flops = [count_flops(cell, MOTIF_C) for cell in CELLS]
    assert len(set(CELLS)) == 12
    assert max(flops) > 5 * min(flops)


# ---- peak


def test_peak(tmp_path: Path) -> None:
    shown, record = call(tmp_path, "peak", "--seconds", "0.002")
    described(record, "peak")
    assert "multiply-adds, float32" in shown
    # A core does 4 (SSE) to 64 (two AVX-512 units) FLOPs of multiply-adds in a cycle of 0.5 to 10 GHz.
    assert 0.5 < record["clock_ghz"] < 10
    assert 1 < record["fma_gflops"] / record["clock_ghz"] < 80
    assert [entry["bytes"] for entry in record["read"]] == peak.SIZES
    assert all(0 < entry["gbytes_per_second"] < 5000 for entry in record["read"])
    assert 0 < record["write_gbytes_per_second"] < 5000


def test_levels_are_read_at_half_a_cache_and_at_the_largest_set() -> None:
    read = [{"bytes": size, "gbytes_per_second": float(i)} for i, size in enumerate(peak.SIZES)]
    levels = peak.levels(read, {"L1": 32 << 10, "L2": 1 << 20})
    assert levels == {
        "L1": peak.SIZES.index(16 << 10),
        "L2": peak.SIZES.index(512 << 10),
        "memory": len(peak.SIZES) - 1,
    }


def test_peak_errors() -> None:
    with pytest.raises(ValueError, match="seconds is 0, expected more than 0"):
        peak.run(seconds=0)
    with pytest.raises(ValueError, match="bytes is 0, expected at least 1"):
        _core.read_rate(0)
    with pytest.raises(ValueError, match="bytes is 0, expected at least 1"):
        _core.write_rate(0)
    with pytest.raises(ValueError, match=r"core is 12345, expected one that this process may use: \[") as raised:
        peak.run(core=12345)
    assert str(sorted(os.sched_getaffinity(0))) in str(raised.value)


def test_pinning_ends() -> None:
    before = os.sched_getaffinity(0)
    with records.pinned(min(before)) as core:
        assert os.sched_getaffinity(0) == {core}
    assert os.sched_getaffinity(0) == before


# ---- what peers are held to


def instruction_sets() -> list[str]:
    """Those of the engine that this machine runs and that a bench can hold the peers to."""
    script = "from spd_fast import _core"
    return [
        isa
        for isa in records.PEERS
        if not subprocess.run(
            [sys.executable, "-c", script], env=os.environ | {"SPD_FAST_ISA": isa}, check=False
        ).returncode
    ]


@pytest.mark.parametrize("isa", instruction_sets())
def test_peers_are_held_to_the_instruction_set_that_the_engine_is_forced_to(isa: str) -> None:
    script = (
        "from spd_fast.bench import record; held = record.begin('inner')['peers_held_by'];"
        "import json, torch; print(json.dumps([held, torch.backends.cpu.get_cpu_capability()]))"
    )
    free = {name: value for name, value in os.environ.items() if name not in records.PEERS[isa]}
    flags = {"XLA_FLAGS": "--xla_dump_to=nowhere"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=free | flags | {"SPD_FAST_ISA": isa},
        capture_output=True,
        text=True,
        check=True,
    )
    held, capability = json.loads(done.stdout)
    assert held == records.PEERS[isa]
    assert capability == held["ATEN_CPU_CAPABILITY"].upper()


def test_a_bench_of_the_command_line_holds_peers_before_it_loads_them(tmp_path: Path) -> None:
    """It asks for PyTorch first, which looks at the processor when it is loaded."""
    isa = instruction_sets()[-1]
    free = {name: value for name, value in os.environ.items() if name not in records.PEERS[isa]}
    cells = tmp_path / "cells.json"
    cells.write_text(json.dumps([Cell([[0, 1], [0, 0]], ["input", "output"]).to_json()]))
    command = [sys.executable, "-m", "spd_fast", "bench", "inner", "--cells", str(cells), "--shapes", "S", "--json"]
    command += ["--rounds", "1", "--many", "0"]
    done = subprocess.run(command, env=free | {"SPD_FAST_ISA": isa}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["peers_held_by"] == records.PEERS[isa]


def test_peers_that_were_loaded_before_and_are_not_held_are_refused() -> None:
    isa = instruction_sets()[-1]
    free = {name: value for name, value in os.environ.items() if name not in records.PEERS[isa]}
    script = "import torch; from spd_fast.bench import record; record.begin('inner')"
    done = subprocess.run(
        [sys.executable, "-c", script], env=free | {"SPD_FAST_ISA": isa}, capture_output=True, text=True, check=False
    )
    assert (
        f"the engine is held to {isa}, but torch was loaded before this bench and is not: start Python" in done.stderr
    )


def test_nothing_is_held_where_no_instruction_set_is_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPD_FAST_ISA", raising=False)
    assert records.hold_peers() == {}


# ---- kernels


def test_kernels(tmp_path: Path) -> None:
    shown, record = call(tmp_path, "kernels", "--channels", "3,5", "--sides", "4", "--rounds", "2")
    described(record, "kernels")
    assert "3x3 3->16 @4" in shown
    found = {(entry["size"], entry["c_in"], entry["c_out"]): entry for entry in record["convolutions"]}
    assert found.keys() == {(3, 3, 16), (3, 5, 5), (1, 5, 5)}
    assert found[3, 5, 5]["flop"] == 2 * 9 * 5 * 5 * 16 * 20
    assert set(found[3, 5, 5]["seconds"]) == {*_core.kernels.algorithms_at(4, 4), "oneDNN"}
    assert set(found[1, 5, 5]["seconds"]) == {"direct", "oneDNN"}
    for entry in record["convolutions"]:
        for taken in entry["seconds"].values():
            assert np.shape(taken) == (2, 3)
            assert np.min(taken) > 0
        # float32 against double: rounding alone, and not none of it.
        assert all(1e-8 < error < kernels.ERROR_LIMIT for errors in entry["error"].values() for error in errors)


def test_kernels_errors() -> None:
    with pytest.raises(ValueError, match=r"rounds 0, .* expected at least 1 of each"):
        kernels.run(rounds=0)
    with pytest.raises(ValueError, match=r"channels \[\], .* expected at least 1 of each"):
        kernels.run(channels=[])
    with pytest.raises(RuntimeError, match=r"direct is off by .* at most: wrong results are not timed"):
        kernels.run(channels=[4], sides=[4], rounds=1, tolerance=1e-9)


# ---- profile


@pytest.mark.parametrize("shape", [MOTIF_B, MOTIF_C], ids=["B", "C"])
@pytest.mark.parametrize("direct_convolutions", [False, True])
@pytest.mark.parametrize("cell", [random_cells(8, seed=2)[7], EDGES], ids=["vertices", "edges"])
def test_step_profile_times_every_part_of_every_op(cell: Any, shape: Any, direct_convolutions: bool) -> None:
    dish = Dish.random(per_class=2)
    measured = step_profile(cell, shape, dish.images, dish.labels, repeats=3, direct_convolutions=direct_convolutions)
    ops, parts = measured["ops"], measured["parts"]
    assert measured["seconds"].shape == (3, len(ops) + 1, len(parts))
    assert measured["parameters"] == count_parameters(cell, shape)
    expected = {
        "conv": {"forward", "statistics", "norm_backward", "wgrad", "dgrad"},
        "sum": {"forward"},
        "pool": {"forward", "backward"},
        "head": {"forward", "backward"},
        "beside": {"load", "loss", "optimizer", "running"},
    }
    for op, seconds in zip([*ops, {"kind": "beside"}], measured["seconds"].min(axis=0), strict=True):
        timed = {part for part, taken in zip(parts, seconds, strict=True) if taken > 0}
        without = {"dgrad"} if op["kind"] == "conv" and op["dgrad"] is None else set()  # it reads the images
        assert timed == expected[op["kind"]] - without or (
            op["kind"] == "sum" and timed == ({"forward", "backward"} if cell is EDGES else set())
        )
    assert (measured["seconds"].sum(axis=(1, 2)) <= measured["timed"]).all()
    # What is not in a part is loops over ops and reading the clock.
    assert measured["seconds"].sum(axis=(1, 2)).max() > 0.5 * measured["timed"].min()
    names = [name for op in ops if op["kind"] == "conv" for name in op["names"]]
    expected_names = [name.removesuffix(".conv.weight") for name in initial_parameters(cell, shape) if "conv" in name]
    assert sorted(names) == sorted(expected_names)
    algorithms = {op[part] for op in ops if op["kind"] == "conv" for part in ("forward", "wgrad")}
    assert (algorithms == {"direct"}) == direct_convolutions
    assert algorithms <= set(_core.kernels.algorithms)


def test_costs_by_hand() -> None:
    measured = {"lanes": 16, "parameters": 10, "image_values": 3 * 16 * 16}
    conv = {
        "kind": "conv",
        "size": 3,
        "c_in": 2,
        "c_out": 5,
        "height": 16,
        "width": 16,
        "elements": 20 * 256,
        "flows": 7,
        "terms": 2,
    }
    flop = 2 * 9 * 2 * 5 * 256 * 20
    for part in ("forward", "dgrad", "wgrad"):
        assert profile.cost(conv, part, measured) == (flop, 4 * (20 * 256 * (2 + 5) + 90))
    made = {**conv, "terms": 4}  # of two tensors a channel, which dgrad does not read
    assert [profile.cost(made, part, measured)[1] for part in ("forward", "wgrad", "dgrad")] == [
        4 * (20 * 256 * (channels + 5) + 90) for channels in (4, 4, 2)
    ]
    assert profile.cost(conv, "statistics", measured) == (0, 4 * 20 * 256 * 5)
    assert profile.cost(conv, "norm_backward", measured) == (0, 4 * 20 * 256 * (2 * (5 + 7) + 5))
    plain = {"kind": "sum", "channels": 5, "terms": 9, "elements": 100, "relu": False, "gathers": False, "flows": 0}
    assert profile.cost(plain, "forward", measured) == (0, 4 * 100 * 14)
    behind = {**plain, "relu": True}
    assert profile.cost(behind, "forward", measured) == (0, 4 * 100 * (14 + 10))
    assert profile.cost(behind, "backward", measured) == (0, 4 * 100 * 10)
    assert profile.cost({**behind, "gathers": True, "flows": 7}, "backward", measured) == (0, 4 * 100 * (7 + 5 + 10))
    pool = {"kind": "pool", "size": 3, "average": False, "channels": 3, "elements_in": 1600, "elements": 1600}
    pool |= {"height": 10, "gathered": 0}
    winners = 7 * 1600 // 16
    for part in ("forward", "backward"):
        assert profile.cost(pool, part, measured) == (0, 3 * (4 * (1600 + 1600) + winners))
        assert profile.cost({**pool, "size": 2, "elements_in": 6400}, part, measured) == (
            0,
            3 * (4 * 8000 + 4 * 1600 // 16),
        )
    odd = 14 * 20 * 3  # pairs of rows of twenty blocks five rows high, the last pair of one row
    assert profile.cost({**pool, "height": 5}, "forward", measured) == (0, 3 * (4 * (1600 + 1600) + odd))
    assert profile.cost({**pool, "average": True}, "forward", measured) == (0, 3 * 4 * (1600 + 1600))
    assert profile.cost({**pool, "gathered": 7}, "backward", measured)[1] == 3 * (4 * 3200 + winners) + 4 * 1600 * 7
    head = {"kind": "head", "channels": 16, "classes": 10, "elements": 20 * 256, "height": 16, "width": 16, "terms": 24}
    assert profile.cost(head, "forward", measured) == (2 * 20 * 16 * 10, 4 * 20 * 256 * 24)
    assert profile.cost(head, "backward", measured) == (4 * 20 * 16 * 10, 4 * 20 * 16 * 16)
    assert profile.cost({"kind": profile.BESIDE}, "optimizer", measured) == (0, 4 * 70)
    assert profile.cost({"kind": profile.BESIDE}, "load", measured) == (0, 4 * 2 * 20 * 3 * 16 * 16)
    assert profile.cost({"kind": profile.BESIDE}, "loss", measured) == (0, 0)


@pytest.mark.parametrize(
    ("c_in", "algorithm", "keeps", "values"),
    [
        (6, "direct", False, {"forward": 0, "dgrad": 0, "wgrad": 0}),
        (6, "winograd", False, {"forward": 1.5 * 6 + 5, "dgrad": 1.5 * 5 + 6, "wgrad": 1.5 * 11}),
        (6, "winograd2d", False, {"forward": 2.25 * 6 + 5, "dgrad": 2.25 * 5 + 6, "wgrad": 2.25 * 11}),
        (3, "winograd2d", True, {"forward": 2.25 * 3 + 5, "dgrad": 2.25 * 5 + 3, "wgrad": 2.25 * 3}),
    ],
)
def test_stores_by_hand(c_in: int, algorithm: str, keeps: bool, values: dict[str, float]) -> None:
    op = {"c_in": c_in, "c_out": 5, "keeps": keeps, "elements": 400, **dict.fromkeys(values, algorithm)}
    assert {part: profile.stored(op, part) for part in values} == {part: 1600 * n for part, n in values.items()}


def test_profile(tmp_path: Path) -> None:
    cell = CELLS[9]
    (tmp_path / "cell").mkdir()
    (tmp_path / "cell" / "cells.json").write_text(json.dumps([cell.to_json()]))
    shown, record = call(
        tmp_path, "profile", "--shape", "C", "--repeats", 3, "--cells", tmp_path / "cell" / "cells.json"
    )
    described(record, "profile")
    assert "3x3 forward" in shown
    assert "stem: 3x3 3->16 @16" in shown
    rows, groups = record["cells"][0]["rows"], record["groups"]
    convolutions = [row for row in rows if row["part"] in ("forward", "dgrad", "wgrad", "backward")]
    # A step is forward, dgrad and wgrad of everything but the dgrad of the stem.
    stem = 2 * 9 * 3 * 16 * 256
    assert sum(row["flop"] for row in convolutions) == 20 * (3 * count_flops(cell, MOTIF_C) - stem)
    assert sum(group["seconds"] for group in groups) == pytest.approx(sum(row["seconds"] for row in rows), rel=1e-12)
    assert sum(group["share_of_step"] for group in groups) == pytest.approx(1, rel=1e-12)
    for row in rows:
        assert row["gflops"] == pytest.approx(row["flop"] / row["seconds"] / 1e9)
        assert row["share_of_peak"] == pytest.approx(row["gflops"] * 1e9 / record["ceilings"]["flops"])


def test_profile_errors() -> None:
    with pytest.raises(ValueError, match="shapes are 'AB', expected one letter of ABC"):
        profile.run(CELLS[:1], "AB")
    with pytest.raises(ValueError, match="repeats is 0, expected at least 1"):
        profile.run(CELLS[:1], "C", repeats=0)
    rows = profile.run(CELLS[:1], "C", repeats=1)["cells"][0]["rows"]
    with pytest.raises(RuntimeError, match="FLOPs, expected 20: a wrong plan is not timed"):
        profile.require_flops(rows, 20)


# ---- inner


def test_inner(tmp_path: Path) -> None:
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "cells.json").write_text(json.dumps([cell.to_json() for cell in CELLS[:2]]))
    shown, record = call(
        tmp_path, "inner", "--shapes", "CS", "--rounds", 1, "--many", 3, "--cells", tmp_path / "cells" / "cells.json"
    )
    described(record, "inner")
    assert "motif C: milliseconds per inner epoch" in shown
    assert "motif S: milliseconds per inner epoch" in shown
    assert [record["shapes"][letter]["side"] for letter in "CS"] == [16, 8]
    small = record["shapes"]["S"]["cells"][0]
    shape, side = records.MOTIFS["S"].shape, records.MOTIFS["S"].side
    stem = 2 * side**2 * 27 * shape.stem_channels
    assert small["gflop_per_epoch"] == pytest.approx(200 * (3 * count_flops(CELLS[0], shape, side) - stem) / 1e9)
    shape = record["shapes"]["C"]
    assert [row["hash"] for row in shape["cells"]] == [cell.module_hash for cell in CELLS[:2]]
    for row in shape["cells"]:
        assert set(row["seconds_per_epoch"]) == {"spd_fast", "PyTorch NCHW", "PyTorch channels_last"}
        assert row["losses_apart"] < inner.LOSS_TOLERANCE
    # Speed-ups are geometric means over cells; "the best" takes the faster layout of each.
    ratios = np.array(
        [
            [taken[0] / row["seconds_per_epoch"]["spd_fast"][0] for taken in row["seconds_per_epoch"].values()]
            for row in shape["cells"]
        ]
    )[:, 1:]
    np.testing.assert_allclose(
        list(shape["speedup_geometric_mean"].values()),
        [*np.exp(np.log(ratios).mean(axis=0)), np.exp(np.log(ratios.min(axis=1)).mean())],
        rtol=1e-12,
    )
    assert shape["speedup_least"] == pytest.approx(ratios.min())
    many = shape["many"]
    assert many["cells"] == 3
    assert all(len(taken) == 1 and taken[0] > 0 for taken in many["seconds"].values())
    one_thread = next(iter(many["seconds"].values()))[0]
    assert many["motif_epochs_per_second"]["spd_fast, 1 thread"] == pytest.approx(3 * many["epochs"] / one_thread)
    team = shape["team"]
    assert team["hashes"] == [cell.module_hash for cell in CELLS[:2]]
    assert team["scaling"] == pytest.approx(np.exp(np.mean(np.log(np.ravel(team["scalings"])))))


def test_inner_errors() -> None:
    with pytest.raises(ValueError, match="shapes are 'AX', expected letters of ABCS such"):
        inner.run(CELLS[:1], "AX")
    with pytest.raises(ValueError, match=r"rounds 0, many 64, clock 'wall': expected at least 1"):
        inner.run(CELLS[:1], rounds=0)
    with pytest.raises(ValueError, match="clock 'sun'"):
        inner.run(CELLS[:1], clock="sun")
    with pytest.raises(
        RuntimeError, match=r"step losses of .* apart, expected .* at most: wrong results are not timed"
    ):
        inner.run(CELLS[:1], "C", rounds=1, many=0, tolerance=0.0)


# ---- hypergradient


def test_hypergradient(tmp_path: Path) -> None:
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "cells.json").write_text(json.dumps([cell.to_json() for cell in CELLS[:2]]))
    options = ("--shapes", "C", "--steps", 10, "--rounds", 1, "--peers", 1, "--compared", 2, "--long", 0)
    shown, record = call(tmp_path, "hypergradient", *options, "--cells", tmp_path / "cells" / "cells.json")
    described(record, "hypergradient")
    assert "float32 against double, 2 random cells, 10 steps" in shown
    shape = record["shapes"]["C"]
    for row in shape["accuracy"]:
        for name in ("spd_fast", "spd_fast, direct convolutions", "PyTorch"):
            assert 0 < row[name]["relative_error"] < 1
            assert 0.9 < row[name]["cosine"] <= 1 + 1e-12
    assert [sorted(row["seconds"]) for row in shape["cells"]] == [
        ["PyTorch", "spd_fast", "spd_fast, direct convolutions", "training"],
        ["spd_fast", "spd_fast, direct convolutions", "training"],
    ]
    for row in shape["cells"]:
        whole, training = row["seconds"]["spd_fast"][0], row["seconds"]["training"][0]
        assert row["training_step"] == pytest.approx(training / 10)
        assert row["reverse_step"] == pytest.approx((whole - training) / 10)
    first = shape["cells"][0]["seconds"]
    assert shape["speedup"]["least"] == pytest.approx(first["PyTorch"][0] / first["spd_fast"][0])


def test_long_hypergradients_have_their_memory_measured() -> None:
    record = hypergradient.run(CELLS[:3], "C", steps=10, rounds=1, peers=0, compared=0, long=2, long_steps=20)
    assert [row["hash"] for row in record["long"]] == [CELLS[i].module_hash for i in (0, 2)], "spread over the cells"
    for row in record["long"]:
        assert row["seconds"] > 0
        assert 0 < row["more_mib"] < row["process_mib"]
    assert "motifs C through 20 steps" in str(hypergradient.tables(record)[-1].title)
    assert speed.draw(record).startswith(PNG), "errors in float32, which were not measured, have no panel"


def test_hypergradient_errors() -> None:
    with pytest.raises(ValueError, match=r"steps 15, rounds 3, .* expected a multiple of 10"):
        hypergradient.run(CELLS[:1], steps=15)
    with pytest.raises(
        RuntimeError, match=r"the hypergradient of .* is off by .* at most: wrong results are not timed"
    ):
        hypergradient.run(CELLS[:1], "C", tolerance=0.0)


# ---- proxies


def test_proxies(tmp_path: Path) -> None:
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "cells.json").write_text(json.dumps([cell.to_json() for cell in CELLS[:2]]))
    shown, record = call(
        tmp_path, "proxies", "--shapes", "C", "--rounds", 2, "--cells", tmp_path / "cells" / "cells.json"
    )
    described(record, "proxies")
    assert "jacob_cov" in shown
    rows = record["shapes"]["C"]
    assert list(rows) == [proxies.FORWARD, *PROXIES]
    for row in rows.values():
        assert set(row["seconds_per_cell"]) == {"spd_fast", "PyTorch"}
        assert all(len(taken) == 2 and min(taken) > 0 for taken in row["seconds_per_cell"].values())
        ours, theirs = (np.median(taken) for taken in row["seconds_per_cell"].values())
        assert row["speedup"] == pytest.approx(theirs / ours)
        assert row["apart"] < proxies.TOLERANCE


def test_proxies_errors() -> None:
    with pytest.raises(ValueError, match="rounds is 0, expected at least 1"):
        proxies.run(CELLS[:1], "C", rounds=0)
    with pytest.raises(ValueError, match="shapes are 'X', expected letters of ABCS such"):
        proxies.run(CELLS[:1], "X")
    with pytest.raises(
        RuntimeError, match=r"scores of forward are .* apart, expected .* at most: wrong results are not timed"
    ):
        proxies.run(CELLS[:1], "C", rounds=1, tolerance=0.0)


# ---- score


def test_score(tmp_path: Path) -> None:
    shown, record = call(tmp_path, "score", "--drawn", 2, "--rounds", 1, "--peers", 1)
    described(record, "score")
    assert "recipe curves, 2 motifs of each of 2 cells" in shown
    assert list(record["parts"]) == list(score.PARTS)
    assert record["parts"]["training steps"] > 0
    assert record["parts"]["reading"] > 0
    assert record["cells_per_second"] == pytest.approx(1 / record["seconds_per_cell"][0])
    assert list(record["proxies"]) == [proxies.FORWARD, *PROXIES]
    assert all(row["seconds_per_cell"][0] > 0 for row in record["proxies"].values())


def test_score_errors() -> None:
    with pytest.raises(ValueError, match="recipe 'demo' reads 'loss', expected one that reads training losses"):
        score.run(CELLS[:1], "demo")
    with pytest.raises(ValueError, match="1 cells, motifs 2, rounds 0, peers 0, clock 'wall': expected at least 1"):
        score.run(CELLS[:1], rounds=0, peers=0)


@pytest.mark.filterwarnings("ignore")  # those of another's library
def test_jax_trains_as_the_engine_does() -> None:
    pytest.importorskip("jax", reason="JAX is an extra of the benches")
    record = inner.run(random_cells(1, seed=6), "B", rounds=1, many=0, jax=True, default_adam=True)
    (row,) = record["shapes"]["B"]["cells"]
    assert {"JAX", inner.DEFAULT_ADAM} < set(row["seconds_per_epoch"])
    assert speed.draw(record).startswith(PNG)
