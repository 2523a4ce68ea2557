"""A script for tests: rank cells on a real cluster of several nodes on this machine, whose workers and one node are killed meanwhile.

    python tests/cluster.py ray|dask FOLDER

It ranks until three workers and a node were killed, prints that, and ends with an error unless all results have the bits of a ranking
with threads.
"""

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import processes
from spd_fast import rank
from spd_fast.ranking.rank import Ranking
from spd_fast.spaces.cell_files import random_cells

CELLS = random_cells(20, seed=2)
NODES = 3


def on_ray(work: Callable[[Any, threading.Thread], None]) -> None:
    """Do the work on a Ray cluster of a head without processors and three nodes; workers die, and a node."""
    import ray
    from ray.cluster_utils import Cluster

    small = {"object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **small})
    nodes = [cluster.add_node(num_cpus=1, **small) for _ in range(NODES)]
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    cluster.wait_for_nodes()

    def at_work() -> list[int]:
        return [pid for pid in processes.descendants(os.getpid()) if processes.command(pid).startswith("ray::_run")]

    def lose_node() -> None:
        cluster.remove_node(nodes.pop(), allow_graceful=False)

    try:
        with Killing(at_work, lose_node) as killing:
            work(ray, killing)
    finally:
        ray.shutdown()
        cluster.shutdown()


def on_dask(work: Callable[[Any, threading.Thread], None]) -> None:
    """Do the work on a Dask cluster of three workers. Those that die are started again by their nannies."""
    from distributed import Client, LocalCluster

    with LocalCluster(NODES, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:

        def lose_node() -> None:
            cluster.scale(NODES - 1)

        def at_work() -> list[int]:
            return sorted(client.run(os.getpid, on_error="ignore").values())

        with Killing(at_work, lose_node) as killing:
            work(client, killing)


class Killing:
    """Kills a worker at random every two seconds, three in all, and loses a node after the second one. The block gets the thread that does that."""

    def __init__(self, at_work: Callable[[], list[int]], lose_node: Callable[[], None]) -> None:
        self.at_work, self.lose_node = at_work, lose_node
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.kill)

    def __enter__(self) -> threading.Thread:
        self.thread.start()
        return self.thread

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()

    def kill(self) -> None:
        """Kill until it is over."""
        rng = np.random.default_rng(int(time.time()))
        killed = 0
        while killed < 3 and not self.over.wait(2.0):
            pids = self.at_work()
            if pids:
                processes.lose(int(rng.choice(pids)))
                killed += 1
                print(f"a worker of {len(pids)} killed by the test", flush=True)
            if killed == 2 and pids:
                self.lose_node()
                print("a node lost by the test", flush=True)


def main() -> None:
    """Rank on the cluster that the command names."""
    import pyarrow.parquet as parquet

    on, folder = {"ray": on_ray, "dask": on_dask}[sys.argv[1]], Path(sys.argv[2])
    expected, ranked = rank(CELLS, threads=1), 0

    def work(executor: Any, killing: threading.Thread) -> None:
        nonlocal ranked
        while not ranked or killing.is_alive():
            parts = folder / f"{ranked}.parts"
            require_same(rank(CELLS, executor=executor, measured=parts), expected)
            table = parquet.read_table(parts)
            motifs = set(zip(table["row"].to_pylist(), table["place"].to_pylist(), strict=True))
            assert len(motifs) == len(table) == 8 * len(CELLS), "nothing is lost, and nothing is there twice"
            ranked += 1

    on(work)
    print(f"{ranked} rankings with the same bits", flush=True)


def require_same(found: Ranking, expected: Ranking) -> None:
    """Raise unless two rankings have the same bits."""
    for name in ("order", "label_free", "replicates", "curves"):
        assert np.array_equal(getattr(found, name), getattr(expected, name), equal_nan=True), name


if __name__ == "__main__":
    main()
