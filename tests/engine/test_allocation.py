"""Training allocates nothing once it runs: the allocator's calls, counted by a library that is loaded before it."""

import os
import platform
import shlex
import subprocess
import sys
import textwrap

import pytest

PROGRAM = textwrap.dedent(
    """
    import ctypes, sys
    import numpy as np
    import spd_fast as spd

    rng = np.random.default_rng(0)
    dish = spd.Dish(rng.standard_normal((8, 3, 16, 16)).astype(np.float32), rng.integers(0, 3, 8))
    ops = ["input", "conv3x3-bn-relu", "maxpool3x3", "conv1x1-bn-relu", "output"]
    cells = [spd.Cell(np.triu(np.ones((5, 5)), 1) - np.eye(5, k=4), ops)]
    shape = spd.MotifShape(6, stacks=2, classes=3)
    count = ctypes.CDLL(None).allocations
    count.restype = ctypes.c_long


    def allocations(epochs, threads):
        before = count()
        {call}
        return count() - before


    for threads in (1, 2):
        print(*(allocations(epochs, threads) for epochs in (1, 1, 50)))
    """
)
CALLS = {
    "train": "spd.train_motifs(cells, shape, dish, epochs=epochs, batch_size=4, threads=threads)",
    "hypergradient": (
        "spd.motif_hypergradient(cells, shape, dish, epochs=epochs, batch_size=4, threads=threads, metric='loss')"
    ),
}


@pytest.fixture(scope="module")
def counter(project_dir, tmp_path_factory):
    library = tmp_path_factory.mktemp("counter") / "count_allocations.so"
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    source = project_dir / "tests" / "count_allocations.cpp"
    subprocess.run([*compiler, "-std=c++20", "-O2", "-shared", "-fPIC", source, "-o", library], check=True)
    return library


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the counter stands before glibc's allocator")
@pytest.mark.parametrize("call", CALLS)
def test_a_training_of_many_steps_allocates_as_often_as_one_of_few(counter, call):
    """1 epoch of 2 steps beside 50 epochs: one motif on one thread, and on a team of two."""
    program = PROGRAM.replace("{call}", CALLS[call])
    environment = os.environ | {"LD_PRELOAD": str(counter)}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    alone, team = ([int(x) for x in line.split()] for line in run.stdout.splitlines())
    assert alone[0] == alone[1] == alone[2] > 0, run.stdout
    assert max(team) - min(team) < 50, run.stdout  # starting threads takes a few more or less; the steps are 98 more
