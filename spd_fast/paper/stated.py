"""What the paper states, as numbers. No other module holds results of the paper.

References
----------
Cassimon et al., Predicting Image Classifier Performance Using the Synthetic Petri Dish Method ("the paper").
"""

from typing import Final, NamedTuple

__all__ = [
    "BUDGET",
    "CELLS",
    "INNER_RATE",
    "LABEL_SECONDS",
    "LARGER_B",
    "OUTER_EPOCHS",
    "PAPER",
    "QUERY_EPOCHS",
    "SECONDS_PER_EPOCH",
    "Seconds",
]


class Seconds(NamedTuple):
    """The seconds of an inner epoch over cells: the least, the mean, the standard deviation and the most."""

    least: float
    mean: float
    sd: float
    most: float


OUTER_EPOCHS: Final = 170
CELLS: Final = 6
INNER_RATE: Final = 5e-5
"""Outer epochs of a run, cells that an outer epoch compares, and the learning rate of the inner loop (section 4)."""

PAPER: Final = {
    "cassimon_a": {"tau": 0.092, "tau_untied": 0.108, "accuracy_last": 0.9781, "perfect": 0.1471},
    "cassimon_b": {"tau": 0.152, "tau_untied": 0.270, "accuracy_last": 0.9943, "perfect": 0.4353},
    "cassimon_c": {
        "tau": -0.002,
        "tau_untied": -0.002,
        "accuracy_first": 0.485,
        "accuracy_last": 0.645,
        "perfect": 0.0,
    },
    "cassimon_a16": {"tau": 0.043, "accuracy_last": 0.5927, "perfect": 0.0},
    "cassimon_b16": {"tau": 0.209, "accuracy_last": 0.8513, "perfect": 0.0},
}
"""Results of sections 5.1 to 5.3, by recipe."""

SECONDS_PER_EPOCH: Final = {
    "A": Seconds(0.193, 4.282, 2.078, 10.361),
    "B": Seconds(0.174, 3.471, 1.701, 10.397),
    "C": Seconds(0.075, 1.427, 0.628, 3.259),
    "NAS-Bench-101": Seconds(2.632, 17.893, 8.508, 51.511),
}
"""Table 1: seconds of an epoch of 200 images on an AMD Ryzen 9 5900X by motif; and of the benchmark's own trainings on a TPU v2."""

BUDGET: Final = 108
LABEL_SECONDS: Final = BUDGET * SECONDS_PER_EPOCH["NAS-Bench-101"].mean
"""Epochs of a full-size training, and its seconds: what it costs to label a cell (table 2)."""
QUERY_EPOCHS: Final = 100
"""Inner epochs of a motif whose cell is scored (section 5.4)."""
LARGER_B: Final = 0.80
"""Share of cells in which motif B has more parameters than motif A (section 5.1)."""
