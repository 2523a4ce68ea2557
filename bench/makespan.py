"""How evenly the work of many motifs is spread over many cores: a simulation in which a motif costs the FLOPs of its cell.

python bench/makespan.py nb101_test108.npz
"""

import argparse
import heapq

import numpy as np

from spd_fast import MOTIF_A, TruthTable
from spd_fast.motif import count_flops_table


def share_at_work(costs: np.ndarray, cores: int) -> float:
    """Return the mean share of the time in which a core works. A core takes the next motif as soon as it is free."""
    busy_until = [0.0] * cores
    for cost in costs:
        heapq.heappush(busy_until, heapq.heappop(busy_until) + cost)
    return float(costs.sum() / cores / max(busy_until))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("truth", help="truth file with 1,000 cells or more (.npz)")
    parser.add_argument(
        "--draws", type=int, default=200, help="number of random draws of motifs that a figure averages (default: 200)"
    )
    arguments = parser.parse_args()
    columns = TruthTable.load(arguments.truth).nasbench_cells
    flops = count_flops_table(columns.vertices, columns.edge_bits, columns.op_codes, MOTIF_A).astype(float)
    print(
        f"cost of a motif over the mean cost: least {flops.min() / flops.mean():.2f}, most {flops.max() / flops.mean():.1f}"
    )
    rng = np.random.default_rng(0)
    for motifs in (64, 256, 1000):
        for cores in (2, 16, 64):
            draws = [rng.choice(flops, motifs, replace=False) for _ in range(arguments.draws)]
            longest = np.mean([share_at_work(np.sort(draw)[::-1], cores) for draw in draws])
            given = np.mean([share_at_work(draw, cores) for draw in draws])
            print(f"{motifs} motifs, {cores} cores: longest first {longest:.2f}, as given {given:.2f}")


if __name__ == "__main__":
    main()
