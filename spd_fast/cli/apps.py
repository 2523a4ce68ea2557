"""The command line's groups of commands."""

from spd_fast.cli.commands import PANELS, Commands, Ordered

__all__ = ["app", "bench_app", "nasbench_app", "predictor_app", "supernet_app", "truth_app"]

app = Commands(
    panels=PANELS,
    cls=Ordered,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Rank cells of neural networks on a CPU, by training tiny networks of each of them.",
    epilog="Examples:\n\n  spd-fast demo\n\n  spd-fast rank candidates.csv --labelled trained.csv\n\n"
    "The first needs no file and takes a minute.",
)
predictor_app = app.add_group(
    "predictor",
    help="Fit a predictor to trained cells, keep it in a file, and query it for other cells.",
    epilog="Examples:\n\n  spd-fast predictor fit trained.csv\n\n  spd-fast predictor query predictor.npz candidates.csv",
)
supernet_app = app.add_group(
    "supernet",
    help="Weight sharing: train one set of weights for all cells on real images, and score cells by slices of it.",
    epilog="Examples:\n\n  spd-fast supernet train --images fashion-mnist/ --out supernet.npz\n\n"
    "  spd-fast supernet score supernet.npz --images fashion-mnist/ --sample 200",
)
truth_app = app.add_group(
    "truth",
    help="Build and show truths: cells with measured accuracies.",
    epilog="Examples:\n\n  spd-fast truth show\n\n  spd-fast truth build --images fashion-mnist/ --out truth.npz",
)
bench_app = app.add_group(
    "bench",
    help="Measure speed on this machine, which should be idle. Each bench first verifies that results are right.",
    epilog="Examples:\n\n  spd-fast bench peak\n\n  spd-fast bench inner --shapes C --out results",
)
nasbench_app = app.add_group(
    "nasbench",
    help="NAS-Bench-101: convert its files to a table, query the table, and enumerate the space.",
    epilog="Examples:\n\n  spd-fast nasbench convert nasbench_only108.tfrecord --out nb101.npz\n\n"
    "  spd-fast nasbench query nb101.npz 00005c142e6f",
)
