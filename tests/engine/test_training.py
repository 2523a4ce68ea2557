"""The door to the engine: what is promised about results, seeds, threads, interruption and bad input.

That the numbers are right is the part of tests/reference/test_pytorch.py.
"""

import copy
import json
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

import spd_fast as spd
from processes import started
from spd_fast.engine import probes
from spd_fast.engine.gradients import pack_motifs, parameter_gradient, read_motifs, weighted_sum
from spd_fast.engine.initial import initial_parameters
from spd_fast.engine.specs import specs_of

CHAIN = spd.Cell(
    [[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]], ["input", "conv3x3-bn-relu", "maxpool3x3", "output"]
)
MIXED = spd.Cell(
    [[0, 1, 1, 1, 1], [0, 0, 1, 0, 1], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]],
    ["input", "conv3x3-bn-relu", "conv1x1-bn-relu", "conv3x3-bn-relu", "output"],
)
SKIP = spd.Cell([[0, 1], [0, 0]], ["input", "output"])
EDGES = spd.NatsCell.parse(
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|avg_pool_3x3~0|nor_conv_1x1~1|skip_connect~2|"
)
CELLS = [CHAIN, MIXED, SKIP]
TINY = spd.MotifShape(4, stacks=2, cells_per_stack=1, classes=3)


@pytest.fixture(scope="module")
def dish():
    rng = np.random.default_rng(0)
    return spd.Dish(
        rng.standard_normal((22, 3, 8, 8)).astype(np.float32),
        rng.integers(0, 3, 22),
        rng.standard_normal((9, 3, 8, 8)).astype(np.float32),
        rng.integers(0, 3, 9),
    )


def train(cells, dish, **how):
    return spd.train_motifs(cells, TINY, dish, **({"epochs": 3, "batch_size": 5, "optimizer": spd.Adam(1e-2)} | how))


def assert_same_bits(a, b):
    for name in ("loss", "accuracy", "diverged_step"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    for x, y in ((a.train, b.train), (a.valid, b.valid)):
        np.testing.assert_array_equal(x.logits, y.logits)
        np.testing.assert_array_equal(x.probability, y.probability)
    for x, y in zip(a.parameters + a.running, b.parameters + b.running, strict=True):
        assert list(x) == list(y)
        for name in x:
            np.testing.assert_array_equal(x[name], y[name])


def test_shapes_and_contents_of_the_result(dish):
    r = train(CELLS, dish, record=["step_loss", "step_accuracy"])
    assert r.loss.shape == r.accuracy.shape == (3, 3)
    assert r.train.logits.shape == (3, 22, 3)
    assert r.valid.logits.shape == (3, 9, 3)
    assert r.recorded["step_loss"].shape == (3, 3 * 5)
    np.testing.assert_allclose(r.recorded["step_loss"].reshape(3, 3, 5).mean(axis=2), r.loss, rtol=1e-12)
    np.testing.assert_allclose(r.recorded["step_accuracy"].reshape(3, 3, 5).mean(axis=2), r.accuracy, rtol=1e-12)
    assert (r.seconds > 0).all()
    assert not r.diverged.any()
    z = r.train.logits.astype(np.float64)
    p = np.exp(z - z.max(axis=2, keepdims=True))
    p /= p.sum(axis=2, keepdims=True)
    true = np.take_along_axis(p, np.broadcast_to(dish.labels[None, :, None], (3, 22, 1)), axis=2)[..., 0]
    np.testing.assert_allclose(r.train.probability, true.mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(r.train.loss, -np.log(true).mean(axis=1), rtol=1e-5)
    np.testing.assert_array_equal(r.train.accuracy, (z.argmax(axis=2) == dish.labels).mean(axis=1))
    for before, after in zip(r.initial, r.parameters, strict=True):
        assert list(before) == list(after)
        assert any((before[name] != after[name]).any() for name in before)


@pytest.mark.parametrize("threads", [2, 3, 4, 7])
def test_threads_do_not_change_a_bit(dish, threads):
    cells = [*CELLS, EDGES]
    assert_same_bits(train(cells, dish, threads=1), train(cells, dish, threads=threads))


@pytest.mark.parametrize("threads", [2, 3, 7])
@pytest.mark.parametrize("direct_convolutions", [False, True])
@pytest.mark.parametrize("stacks", [1, 2, 3])
def test_a_team_of_threads_does_not_change_a_bit(threads, direct_convolutions, stacks):
    """The batch is split over a team, in several chunks at 16 x 16: from the start where there is one motif, later where a shorter one ends before it.
    Steps are taken alone and shared in turns, until it is known which is faster."""
    shape = spd.MotifShape(12, stacks, cells_per_stack=1)
    dish = spd.Dish.random(per_class=4)
    dish = spd.Dish(dish.images, dish.labels, dish.images[:7], dish.labels[:7])
    for cells in ([MIXED], [CHAIN], [EDGES], [SKIP, MIXED, SKIP]):
        how = {"epochs": 2, "batch_size": 15, "optimizer": spd.Adam(1e-2), "direct_convolutions": direct_convolutions}
        assert_same_bits(*(spd.train_motifs(cells, shape, dish, threads=n, **how) for n in (1, threads)))


def times_of_threads():
    """Nanoseconds that each thread of this process has run, but the one that calls."""
    tasks = pathlib.Path("/proc/self/task")
    others = (task for task in tasks.iterdir() if int(task.name) != threading.get_native_id())
    return {int(task.name): int((task / "schedstat").read_text().split()[0]) for task in others}


def workers_of(call):
    """The threads that ran for at least 5 ms while `call` did."""
    before = times_of_threads()
    call()
    return {thread for thread, time in times_of_threads().items() if time - before.get(thread, 0) > 5e6}


needs_proc = pytest.mark.skipif(not os.path.exists("/proc/self/schedstat"), reason="needs Linux's times of threads")


@needs_proc
@pytest.mark.parametrize("threads", [1, 3, 4, 7, 16])
def test_as_many_threads_take_part_as_are_asked_for(threads):
    """Whatever the number of processors: one motif each, of 50 ms or more. The next call finds the same threads."""
    first, second = (
        workers_of(
            lambda: spd.train_motifs([MIXED] * threads, spd.MOTIF_C, spd.Dish.random(), epochs=8, threads=threads)
        )
        for _ in range(2)
    )
    assert len(first) == threads
    assert second == first


@needs_proc
@pytest.mark.parametrize("threads", [1, 2, 16])
def test_threads_sleep_between_calls(dish, threads):
    """A barrier that spins would keep them busy for 6 ms or more."""
    used = []
    for _ in range(5):
        train(CELLS, dish, threads=threads)
        start = time.process_time()
        time.sleep(0.05)
        used.append(time.process_time() - start)
    assert sorted(used)[2] < 0.002


def run_script(script, **environment):
    """What `script` prints, run by itself, with `train` and `tasks` at hand."""
    start = """
        import os, signal, sys
        import numpy as np
        import spd_fast as spd
        cells = [spd.Cell([[0, 1], [0, 0]], ["input", "output"])] * 4
        def train(threads, **how):
            how = {"epochs": 2, "batch_size": 10} | how
            return spd.train_motifs(cells, spd.MotifShape(4), spd.Dish.random(per_class=2, image_size=8), threads=threads, **how).loss
        def tasks():
            return set(map(int, os.listdir("/proc/self/task")))
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))} | environment
    command = [sys.executable, "-c", textwrap.dedent(start) + textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_proc
def test_a_call_starts_no_more_threads_than_help():
    printed = run_script("""
        before, expected = tasks(), train(1)
        assert (train(10_000) == expected).all()
        print(len(tasks() - before))
    """)
    assert int(printed) == max(64, 4 * spd._core.default_threads())


@pytest.mark.parametrize("loaded", ["", "import torch; torch.set_num_threads(2); torch.zeros(10**6).mul_(2)"])
@pytest.mark.parametrize("where", ["expected = train(3); fork()", "train(3, epochs=2_000, progress=lambda _: fork())"])
def test_a_forked_child_trains_after_its_parent(loaded, where):
    """Also where the parent forks while it trains, and beside PyTorch, whose threads are OpenMP's too."""
    script = f"""
        {loaded}
        expected, codes = train(3), []
        def fork():
            if codes:
                return
            child = os.fork()
            if child == 0:
                signal.alarm(20)
                os._exit(0 if (train(3) == expected).all() else 3)
            codes.append(os.waitpid(child, 0)[1])
        {where}
        assert (train(3) == expected).all()
        print(*codes)
    """
    assert run_script(script) == "0\n"


@needs_proc
@pytest.mark.skipif(spd._core.default_threads() < 2, reason="needs two processors")
def test_threads_run_where_the_caller_may():
    """Also where that changes between calls, for those made before."""
    run_script("""
        before, all_of_them = tasks(), os.sched_getaffinity(0)
        for processors in (all_of_them, {max(all_of_them)}, all_of_them):
            os.sched_setaffinity(0, processors)
            train(len(all_of_them))
            workers = tasks() - before
            assert [os.sched_getaffinity(thread) for thread in workers] == [processors] * len(all_of_them)
    """)


@pytest.mark.parametrize("limit", ["1", "2"])
def test_fewer_threads_than_asked_for_train_as_well(limit):
    """OpenMP's environment variables hold for all of a process; where one thread is left, it is the caller's."""
    script = "shares = []; print(train(3, progress=shares.append).tolist(), len(shares) > 0)"
    assert run_script(script, OMP_THREAD_LIMIT=limit) == run_script(script)


@needs_proc
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, which may become a user who has no other processes")
@pytest.mark.parametrize("more", [0, 1, 2, 3])
@pytest.mark.parametrize("nested", [False, True])
def test_where_the_system_refuses_threads_the_others_train(more, nested):
    """OpenMP alone would end the process. A callback's region starts threads beside those of the region around it."""
    calls = (
        "train(1, epochs=2_000, progress=lambda _: losses.append(train(4)))" if nested else "losses.append(train(4))"
    )
    printed = run_script(f"""
        import resource, threading
        expected, losses = train(1), []
        child = os.fork()
        if child:
            sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        signal.alarm(20)
        os.setuid(54_321)  # root has no limit
        resource.setrlimit(resource.RLIMIT_NPROC, ({more + 1}, {more + 1}))
        {calls}
        assert losses and all((loss == expected).all() for loss in losses)
        print(len(tasks()))
        try:
            for _ in range({more + 1}):
                threading.Thread(target=signal.pause, daemon=True).start()
            print("no limit")
        except RuntimeError:
            pass
        sys.stdout.flush()
        os._exit(0)
    """)
    if "no limit" in printed:
        pytest.skip("this system lets the user have more threads than RLIMIT_NPROC says")
    assert int(printed) <= 1 + more if nested else int(printed) == 1 + more


def test_a_callback_may_train(dish):
    inner = []

    def progress(_share):
        if not inner:
            inner.append(train(CELLS, dish, threads=3))

    outer = train(CELLS, dish, epochs=400, threads=2, progress=progress)
    assert_same_bits(inner[0], train(CELLS, dish, threads=1))
    assert_same_bits(outer, train(CELLS, dish, epochs=400, threads=1))


def test_two_threads_may_call_at_once(dish):
    with ThreadPoolExecutor(2) as pool:
        at_once = list(pool.map(lambda _: train(CELLS, dish, threads=2), range(4)))
    for result in at_once:
        assert_same_bits(result, train(CELLS, dish, threads=1))


@pytest.mark.parametrize(
    ("side", "batch_size", "n"),
    [(16, 8, 13), (16, 8, 11), (16, 8, 12), (8, 32, 51), (12, 9, 16), (20, 7, 12), (32, 4, 7), (32, 4, 5)],
)
def test_a_small_last_batch_is_trained_in_the_memory_of_a_large_one(side, batch_size, n):
    """Its batch is one slice where the others' are two, or two unlike ones, so that other sums are taken, of other sizes. Float strays from double by 7e-8 of a loss here."""
    dish = spd.Dish.random(per_class=6, image_size=side)
    dish = spd.Dish(dish.images[:n], dish.labels[:n], dish.images[:4], dish.labels[:4])
    shape = spd.MotifShape(8, stacks=2, cells_per_stack=1)
    alone, team = (
        spd.train_motifs([MIXED], shape, dish, epochs=3, batch_size=batch_size, threads=t, dtype="float32")
        for t in (1, 2)
    )
    assert_same_bits(alone, team)
    double = spd.train_motifs([MIXED], shape, dish, epochs=3, batch_size=batch_size, dtype="float64")
    np.testing.assert_allclose(alone.loss, double.loss, rtol=1e-6)


def test_memory_is_for_what_is_of_use_at_one_moment():
    """Of two cells with five vertices in a row behind four projections: with convolutions a training step keeps what each of them wrote and none of the sums
    that they read (with those it would be more than 30 MiB), with pooling fewer; without a backward pass few are of use at once."""
    edges = [*((0, v) for v in range(1, 5)), (1, 3), (2, 3), (3, 4), (4, 5), (5, 6)]
    matrix = [[int((i, j) in edges) for j in range(7)] for i in range(7)]
    mebibytes = {}
    for op in ("conv3x3-bn-relu", "maxpool3x3"):
        cell = spd.Cell(matrix, ["input", "conv3x3-bn-relu", *[op] * 4, "output"])
        (spec,) = specs_of([cell], spd.MOTIF_A, (3, 16, 16))
        mebibytes[op] = [spec.memory(20, backward=backward) / 2**20 for backward in (True, False)]
    assert 20 < mebibytes["conv3x3-bn-relu"][0] < 24
    # 7 bytes of winners for each vector are a ninth of what was pooled with 16 lanes; with 4 nearly half, which go where only one part of the arena is free.
    fewer = 1 if spd._core.isa == "baseline" else 0.9
    assert mebibytes["maxpool3x3"][0] < fewer * mebibytes["conv3x3-bn-relu"][0]
    assert all(forward < step / 2.5 for step, forward in mebibytes.values())


def test_a_set_that_does_not_fit_the_machine_is_refused():
    """Of images so many that what their stem writes, 128 KiB each, fills the machine; they themselves have 64 bytes each."""
    shape = spd.MotifShape(2048, classes=2, image_channels=1)
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    n = installed // (2048 * 16 * 4)
    dish = spd.Dish(np.zeros((n, 1, 4, 4), np.float32), np.zeros(n, int))
    has = f"{installed / 2**30:.1f}".replace(".", r"\.")
    with pytest.raises(
        MemoryError, match=rf"need .* GiB for each thread, .* the machine's {has} GiB: use statistics='running'"
    ):
        spd.train_motifs([SKIP], shape, dish, epochs=1)


def test_company_and_order_do_not_change_a_bit(dish):
    cells = [*CELLS, EDGES]
    together = train(cells, dish)
    for k, cell in enumerate(cells):
        alone = train([cell], dish)
        np.testing.assert_array_equal(alone.loss[0], together.loss[k])
        np.testing.assert_array_equal(alone.train.logits[0], together.train.logits[k])
    backwards = train(cells[::-1], dish, threads=2)
    np.testing.assert_array_equal(backwards.loss[::-1], together.loss)


def test_initial_scales_scale_weights_by_kind_of_layer():
    plain, scaled = (initial_parameters(MIXED, TINY, initial_scales=x) for x in (None, (2, 4, 8, 16)))
    factors = {"stem.conv.weight": 2, "dense.weight": 16}
    for name, weights in plain.items():
        factor = factors.get(name, {3: 4, 1: 8}[weights.shape[2]] if weights.ndim == 4 else 1)
        np.testing.assert_array_equal(scaled[name], weights * factor)
    for scales in ((1, 1, 1, 0), (1, 1, 1), (1, 1, 1, np.inf)):
        with pytest.raises(
            ValueError, match=r"initial_scales are .*, expected 4 finite numbers above 0: stem, conv3x3"
        ):
            initial_parameters(MIXED, TINY, initial_scales=scales)


def test_seed_and_replicate_change_the_start_and_seed_alone_the_orders(dish):
    a, b, c = (train(CELLS, dish, **how) for how in ({}, {"seed": 1}, {"replicate": 1}))
    assert (a.loss != b.loss).all()
    assert (a.loss != c.loss).all()
    same_start = [train(CELLS, dish, seed=s, init=a.initial).loss for s in (0, 1)]
    np.testing.assert_array_equal(same_start[0], a.loss)
    assert (same_start[0] != same_start[1]).any()


def test_given_weights_and_orders_are_used(dish):
    order = np.stack([np.random.default_rng(i).permutation(22) for i in range(3)])
    a = train(CELLS, dish, order=order)
    b = train(CELLS, dish, order=order, init=a.initial, seed=99)
    assert_same_bits(a, b)
    resumed = train(CELLS, dish, epochs=0, init=a.parameters)
    np.testing.assert_array_equal(resumed.train.logits, a.train.logits)
    assert resumed.loss.shape == (3, 0)


def test_the_last_partial_batch_is_kept_or_dropped(dish):
    order = np.arange(22)[None].repeat(2, 0)
    kept = train(CELLS, dish, epochs=2, order=order, record=["step_loss"])
    dropped = train(CELLS, dish, epochs=2, order=order, drop_last=True, record=["step_loss"])
    assert kept.recorded["step_loss"].shape == (3, 10)
    assert dropped.recorded["step_loss"].shape == (3, 8)
    np.testing.assert_array_equal(kept.recorded["step_loss"][:, :4], dropped.recorded["step_loss"][:, :4])
    whole = train(CELLS, dish, batch_size=100, record=["step_loss"])  # a batch is at most the set
    assert whole.recorded["step_loss"].shape == (3, 3)


def test_schedules(dish):
    steps = 3 * 5
    cosine = 1e-2 * (1 + np.cos(np.pi * np.arange(steps) / steps)) / 2
    assert_same_bits(train(CELLS, dish, schedule="cosine"), train(CELLS, dish, schedule=cosine))
    assert_same_bits(train(CELLS, dish), train(CELLS, dish, schedule=np.full(steps, 1e-2)))
    still = train(CELLS, dish, schedule=np.zeros(steps))
    np.testing.assert_array_equal(still.parameters[0]["stem.conv.weight"], still.initial[0]["stem.conv.weight"])


def test_shared_initial_weights_are_slices_of_one_tensor():
    wide = initial_parameters(MIXED, spd.MOTIF_C, dtype="float64")
    narrow = initial_parameters(MIXED, spd.MotifShape(8), dtype="float64")
    for name in (
        "stem.conv.weight",
        "stacks.0.0.projection1.conv.weight",
        "stacks.0.0.vertex3.conv.weight",
        "dense.weight",
    ):
        a, b = wide[name], narrow[name]
        slices = tuple(slice(0, n) for n in b.shape)
        fan_in = [np.prod(w.shape[1:]) for w in (a, b)]
        np.testing.assert_allclose(a[slices] * np.sqrt(fan_in[0]), b * np.sqrt(fan_in[1]), rtol=1e-12)
    cells = [CHAIN, MIXED]
    stems = [initial_parameters(cell, spd.MOTIF_C)["stem.conv.weight"] for cell in cells]
    np.testing.assert_array_equal(*stems)
    apart = [initial_parameters(cell, spd.MOTIF_C, init="motif")["stem.conv.weight"] for cell in cells]
    assert not np.array_equal(*apart)


def test_a_1x1_convolution_is_the_centre_of_the_3x3_of_its_name():
    matrix = [[0, 1, 0], [0, 0, 1], [0, 0, 0]]
    small, large = (
        initial_parameters(spd.Cell(matrix, ["input", op, "output"]), spd.MOTIF_C)["stacks.0.0.vertex1.conv.weight"]
        for op in ("conv1x1-bn-relu", "conv3x3-bn-relu")
    )
    np.testing.assert_allclose(small[..., 0, 0], large[..., 1, 1] * 3, rtol=1e-6)  # fan-in is 9 times smaller


def test_initialisers_have_the_stated_spread():
    shape = spd.MotifShape(64)
    pytorch = initial_parameters(MIXED, shape, dtype="float64")
    bench = initial_parameters(MIXED, shape, dtype="float64", init_distribution="nasbench101")
    name = "stacks.0.0.vertex3.conv.weight"
    n = pytorch[name].size
    fan_in = np.prod(pytorch[name].shape[1:])
    error = 5 / np.sqrt(2 * n)  # five standard errors of a standard deviation
    assert np.abs(pytorch[name]).max() <= 1 / np.sqrt(fan_in)
    assert pytorch[name].std() * np.sqrt(3 * fan_in) == pytest.approx(1, abs=error)
    assert bench[name].std() * np.sqrt(fan_in) == pytest.approx(1, abs=error)
    assert np.abs(bench[name]).max() <= 2 / np.sqrt(fan_in) / 0.8796
    assert not bench["dense.bias"].any()


def test_a_diverged_motif_is_a_result(dish):
    r = train(CELLS, dish, optimizer=spd.SGD(lr=1e38))
    assert r.diverged.all()
    assert (r.diverged_step >= 1).all()
    assert np.isnan(r.loss[:, -1]).all()
    assert np.isnan(r.train.probability).all()


def test_divergence_of_one_does_not_touch_the_others(dish):
    start = train(CELLS, dish, epochs=0).initial
    poisoned = [dict(w) for w in start]
    poisoned[0]["stem.conv.weight"] = np.full_like(poisoned[0]["stem.conv.weight"], np.nan)
    r, clean = train(CELLS, dish, init=poisoned, threads=1), train(CELLS, dish, init=start)
    assert r.diverged.tolist() == [True, False, False]
    assert r.diverged_step[0] == 0
    np.testing.assert_array_equal(r.loss[1:], clean.loss[1:])
    np.testing.assert_array_equal(r.train.logits[1:], clean.train.logits[1:])


def test_running_statistics_in_chunks(dish):
    images = np.concatenate([dish.images] * 6)
    big = spd.Dish(images, np.concatenate([dish.labels] * 6))  # 132 images: more than one chunk
    r = spd.train_motifs(CELLS, TINY, big, epochs=2, statistics="running", optimizer=spd.Adam(1e-3))
    logits = r.train.logits.reshape(3, 6, 22, 3)
    np.testing.assert_allclose(logits, logits[:, :1].repeat(6, 1), rtol=1e-4, atol=1e-5)
    assert set(r.running[0]) >= {"stem.bn.running_mean", "stem.bn.running_var"}


def test_progress_is_called_and_may_stop_the_training(dish):
    shares = []
    train(CELLS, dish, epochs=400, progress=shares.append)
    assert shares[-1] == 1.0
    assert sorted(shares) == shares
    assert all(0 <= s <= 1 for s in shares)

    def stop(_share):
        raise RuntimeError("enough")

    start = time.monotonic()
    with pytest.raises(RuntimeError, match="enough"):
        train(CELLS, dish, epochs=30_000, progress=stop)
    assert time.monotonic() - start < 10


def test_the_final_metrics_of_a_large_network_can_be_stopped():
    def seconds(progress=None):
        start = time.monotonic()
        how = {"epochs": 0, "statistics": "running", "threads": 1, "progress": progress}
        spd.train_motifs([CHAIN], spd.NASBENCH101, spd.Dish.random(per_class=2, image_size=32), **how)
        return time.monotonic() - start

    def stop(_share):
        raise RuntimeError("enough")

    whole = seconds()
    began = time.monotonic()
    with pytest.raises(RuntimeError, match="enough"):
        seconds(stop)
    assert (
        time.monotonic() - began < 0.6 * whole + 0.2
    )  # a poll (0.1 s) and an op later; unstopped it would take `whole`


def test_ctrl_c_stops_within_a_second():
    script = textwrap.dedent("""
        import spd_fast as spd
        cell = spd.Cell([[0, 1], [0, 0]], ["input", "output"])
        print("ready", flush=True)
        spd.train_motifs([cell] * 3, spd.MOTIF_C, spd.Dish.random(), epochs=300_000, threads=2)
    """)
    with started([sys.executable, "-c", script]) as process:
        assert process.reaches(lambda: process.out == "ready\n"), process.err
        time.sleep(2)
        sent = time.monotonic()
        process.send(signal.SIGINT)
        process.wait()
        took, err = time.monotonic() - sent, process.err
    assert took < 2  # a second for the engine, the rest for the interpreter to leave
    assert "KeyboardInterrupt" in err


def test_gradient_of_the_probability_by_central_differences(dish):
    r = train(CELLS, dish, dtype="float64")
    images = dish.valid_images.astype(np.float64)
    values, gradient = spd.motif_gradient(CELLS, TINY, images, dish.valid_labels, r.parameters, dtype="float64")
    np.testing.assert_allclose(values, r.valid.probability, rtol=1e-12)
    direction = np.random.default_rng(1).standard_normal(images.shape)
    h = 1e-6
    ends = [
        spd.motif_gradient(CELLS, TINY, images + s * h * direction, dish.valid_labels, r.parameters, dtype="float64")[0]
        for s in (1, -1)
    ]
    slope = (ends[0] - ends[1]) / (2 * h)
    np.testing.assert_allclose((gradient * direction).sum(axis=(1, 2, 3, 4)), slope, rtol=1e-5, atol=1e-9)
    weights = np.array([0.5, -1.0, 2.0])
    _, total = spd.motif_gradient(
        CELLS, TINY, images, dish.valid_labels, r.parameters, factors=weights, dtype="float64"
    )
    np.testing.assert_allclose(total, np.tensordot(weights, gradient, 1), rtol=1e-12, atol=1e-18)


def test_soft_labels_equal_hard_ones_where_they_are_one_hot(dish):
    soft = spd.Dish(dish.images, np.eye(3, dtype=np.float32)[dish.labels], dish.valid_images, dish.valid_labels)
    assert_same_bits(train(CELLS, dish), train(CELLS, soft))


def test_parameter_gradient_is_that_of_the_first_step(dish):
    start = train(CELLS, dish, epochs=0, dtype="float64").initial
    _, gradient, _ = parameter_gradient(CELLS, TINY, dish.images, dish.labels, start, dtype="float64")
    after = train(
        CELLS, dish, epochs=1, batch_size=22, init=start, optimizer=spd.SGD(lr=0.5), dtype="float64"
    ).parameters
    for before, g, w in zip(start, gradient, after, strict=True):
        for name in before:
            np.testing.assert_allclose(w[name], before[name] - 0.5 * g[name], rtol=1e-9, atol=1e-12)


def test_dish_round_trip_and_random(tmp_path, dish):
    dish.save(tmp_path / "dish.npz")
    again = spd.Dish.load(tmp_path / "dish.npz")
    for name in ("images", "labels", "valid_images", "valid_labels"):
        np.testing.assert_array_equal(getattr(again, name), getattr(dish, name))
    learned = replace(dish, rates=np.ones(3), initial_scales=np.arange(1.0, 5), step_weights=np.array([0.0, -1, 2]))
    learned.save(tmp_path / "learned.npz")
    again = spd.Dish.load(tmp_path / "learned.npz")
    for name in ("rates", "initial_scales", "step_weights"):
        np.testing.assert_array_equal(getattr(again, name), getattr(learned, name))
    paper = spd.Dish.random()
    assert paper.images.shape == (200, 3, 16, 16)
    assert np.bincount(paper.labels).tolist() == [20] * 10
    np.savez(tmp_path / "other.npz", pictures=paper.images)
    with pytest.raises(ValueError, match="no array 'images'"):
        spd.Dish.load(tmp_path / "other.npz")


IMAGES = np.zeros((4, 3, 8, 8), np.float32)
LABELS = np.array([0, 1, 2, 0])
NAN = IMAGES.copy()
NAN[2, 0, 1, 1] = np.nan


@pytest.mark.parametrize(
    ("error", "match", "arguments"),
    [
        (ValueError, r"images\[2\] holds NaN or infinity \(1 of 4", {"images": NAN}),
        (ValueError, r"images has shape \(4, 8, 8\), expected \(N, C, H, W\)", {"images": IMAGES[:, 0]}),
        (ValueError, "has 8 channels .*expected 1 to 4", {"images": np.zeros((4, 8, 8, 3))}),
        (ValueError, "65 x 65 pixels, expected sides of 1 to 64", {"images": np.zeros((4, 3, 65, 65))}),
        (TypeError, "images has dtype .*expected floating point", {"images": IMAGES.astype(str)}),
        (
            ValueError,
            r"labels has shape \(3,\), expected \(4,\) or \(4, classes\) to match images",
            {"labels": LABELS[:3]},
        ),
        (TypeError, "labels has dtype float64, expected integers", {"labels": LABELS.astype(float)}),
        (ValueError, r"labels\[1\] is -1, expected classes counted from 0", {"labels": np.array([0, -1, 0, -2])}),
        (ValueError, "labels holds NaN", {"labels": np.full((4, 3), np.nan)}),
        (TypeError, "dtype int64, expected floating point for soft labels", {"labels": np.ones((4, 3), np.int64)}),
        (ValueError, "valid_labels is missing", {"valid_images": IMAGES}),
        (ValueError, r"rates are \[-1.0\], expected finite numbers of at least 0", {"rates": [-1.0]}),
        (ValueError, r"initial_scales are \[1.0, 1.0\], expected 4 finite numbers above 0", {"initial_scales": [1, 1]}),
        (ValueError, "step_weights are .*, expected finite numbers, one for each step", {"step_weights": [[1.0]]}),
        (ValueError, "step_weights are .*, expected finite numbers, .* not all 0", {"step_weights": [0.0, 0.0]}),
        (
            ValueError,
            r"valid_images has shape .*to match images",
            {"valid_images": np.zeros((4, 3, 9, 8)), "valid_labels": LABELS},
        ),
    ],
)
def test_bad_dishes(error, match, arguments):
    with pytest.raises(error, match=match):
        spd.Dish(**({"images": IMAGES, "labels": LABELS} | arguments))


@pytest.mark.parametrize(
    ("error", "match", "arguments"),
    [
        (ValueError, "epochs is -1", {"epochs": -1}),
        (ValueError, "batch_size is 0", {"batch_size": 0}),
        (ValueError, "threads is 0", {"threads": 0}),
        (ValueError, "init is 'zeros', expected 'shared' or 'motif'", {"init": "zeros"}),
        (ValueError, "init holds 1 sets of weights, expected 3", {"init": [{}]}),
        (ValueError, "weights lack 'stem.conv.weight'", {"init": [{}, {}, {}]}),
        (ValueError, r"order has shape \(1, 22\), expected \(3, 22\)", {"order": np.zeros((1, 22), int)}),
        (
            ValueError,
            "order holds 22 to 22, expected 0 to 21",
            {"order": np.full((3, 22), 22)},
        ),
        (TypeError, "order has dtype float64", {"order": np.zeros((3, 22))}),
        (ValueError, r"schedule has shape \(2,\), expected \(15,\)", {"schedule": [0.1, 0.2]}),
        (ValueError, "schedule is 'linear'", {"schedule": "linear"}),
        (ValueError, "schedule holds NaN", {"schedule": np.full(15, np.nan)}),
        (ValueError, "record names 'weights'", {"record": ["weights"]}),
        (ValueError, "statistics is 'moving'", {"statistics": "moving"}),
        (ValueError, "init_distribution is 'he'", {"init_distribution": "he"}),
        (ValueError, "batch_norm_momentum is 2", {"batch_norm_momentum": 2}),
        (TypeError, "dtype is int32, expected float32 or float64", {"dtype": "int32"}),
    ],
)
def test_bad_arguments(dish, error, match, arguments):
    with pytest.raises(error, match=match):
        train(CELLS, dish, **arguments)


@pytest.mark.parametrize(
    ("error", "match", "arguments"),
    [
        (TypeError, "threads is 1.5, expected an integer", {"threads": 1.5}),
        (TypeError, "threads is '1', expected an integer", {"threads": "1"}),
        (TypeError, "seed is 1.5, expected an integer", {"seed": 1.5}),
        (TypeError, r"seed is array\(True\), expected an integer", {"seed": np.array(True)}),
        (TypeError, "epochs is '1', expected an integer", {"epochs": "1"}),
        (TypeError, "evaluate is 1, expected True or False", {"evaluate": 1}),
        (TypeError, "direct_convolutions is 'no', expected True or False", {"direct_convolutions": "no"}),
        (TypeError, r"optimizer is 'adam', expected an optimizer such as spd_fast.Adam\(", {"optimizer": "adam"}),
        (TypeError, "optimizer is the class Adam, expected an optimizer", {"optimizer": spd.Adam}),
        (TypeError, "dtype is torch.float32, expected 'float32' or 'float64'", {"dtype": torch.float32}),
        (TypeError, "schedule has dtype complex128, expected real numbers", {"schedule": np.ones(15) * 1j}),
        (TypeError, "initial_scales has dtype complex128, expected real", {"initial_scales": [1, 1, 1, 1j]}),
        (
            TypeError,
            r"record is 'step_loss', expected a sequence of names such as \['step_loss'\]",
            {"record": "step_loss"},
        ),
        (TypeError, "init is 3, expected a sequence of weights by name", {"init": 3}),
        (TypeError, "one of init is 3, expected a dict of arrays", {"init": [3, 3, 3]}),
        (TypeError, "progress is 3, expected a function or None", {"progress": 3}),
    ],
)
def test_arguments_of_wrong_types(dish, error, match, arguments):
    with pytest.raises(error, match=match):
        train(CELLS, dish, **arguments)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.float32(np.inf)])
def test_optimizers_have_finite_numbers(value):
    with pytest.raises(ValueError, match=r"Adam\.lr is -?inf, expected a finite number"):
        spd.Adam(lr=value)
    with pytest.raises(TypeError, match=r"SGD\.lr is 1j, expected a number"):
        spd.SGD(lr=1j)
    with pytest.raises(TypeError, match=r"SGD\.nesterov is 1, expected True or False"):
        spd.SGD(momentum=0.9, nesterov=1)
    with pytest.raises(TypeError, match=r"Adam\.betas is 0\.9, expected a sequence of two numbers"):
        spd.Adam(betas=0.9)


def test_numbers_of_numpy_are_those_of_python(dish):
    """The results have the same bits, and the records are equal: 0.5 and 0.25 are exact in every type."""
    plain = {
        "epochs": 2,
        "batch_size": 5,
        "seed": 3,
        "optimizer": spd.Adam(0.5, (0.5, 0.25)),
        "batch_norm_momentum": 0.25,
    }
    other = {
        "epochs": np.int8(2),
        "batch_size": np.array(5),
        "seed": np.uint32(3),
        "optimizer": spd.Adam(np.float32(0.5), np.array([0.5, 0.25])),
        "batch_norm_momentum": np.array(0.25),
        "threads": np.int64(2**40),
        "drop_last": np.False_,
    }
    assert plain["optimizer"] == other["optimizer"]
    assert hash(plain["optimizer"]) == hash(other["optimizer"])
    one, two = train(CELLS, dish, **plain), train(CELLS, dish, **other)
    assert np.array_equal(one.loss, two.loss)
    objects = np.array(CELLS, dtype=object)
    assert np.array_equal(train(objects, dish, **plain).loss, one.loss)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))])
def test_packed_motifs_are_copied(dish, copied):
    start = train(CELLS, dish, epochs=1)
    packed = pack_motifs(CELLS, TINY, start.parameters, dish.images.shape[1:]).take([2, 0])
    again = copied(packed)
    assert not again.weights[0].flags.writeable
    one, two = (read_motifs(each, dish.images, dish.labels) for each in (packed, again + packed))
    assert np.array_equal(two.loss, np.r_[one.loss, one.loss])
    assert np.array_equal(two.d_images[:2], one.d_images)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))])
def test_results_are_copied(dish, copied):
    trained = train(CELLS, dish, epochs=1)
    again = copied(trained)
    assert np.array_equal(again.loss, trained.loss)
    for name in ("initial", "parameters", "running"):
        for one, two in zip(getattr(trained, name), getattr(again, name), strict=True):
            assert one.keys() == two.keys()
            assert all(np.array_equal(one[key], two[key]) for key in one)


def test_images_of_cells_have_sides_of_at_least_four():
    dish = spd.Dish(np.zeros((4, 3, 3, 8)), LABELS)
    with pytest.raises(ValueError, match="3 x 8 pixels, expected sides of 4 to 64"):
        spd.train_motifs([CHAIN], spd.MOTIF_C, dish)


def test_more_bad_arguments(dish):
    with pytest.raises(ValueError, match="cells is empty"):
        train([], dish)
    with pytest.raises(TypeError, match="cells is one Cell"):
        train(CHAIN, dish)
    with pytest.raises(TypeError, match=r"cells\[1\] is str"):
        train([CHAIN, "cell"], dish)
    with pytest.raises(ValueError, match=r"labels\[\d+\] is 2, expected 0 to 1: the motif shape has 2 classes"):
        spd.train_motifs(CELLS, spd.MotifShape(4, classes=2), dish, epochs=1)
    with pytest.raises(ValueError, match="labels has 3 classes, expected 10"):
        spd.train_motifs(CELLS, spd.MOTIF_C, spd.Dish(IMAGES, np.zeros((4, 3), np.float32)), epochs=1)
    with pytest.raises(ValueError, match="images has 3 channels, expected 1"):
        spd.train_motifs(CELLS, spd.MotifShape(4, classes=3, image_channels=1), dish, epochs=1)
    with pytest.raises(ValueError, match="expected sides of at least 16 to be halved between 5 stacks"):
        spd.train_motifs(CELLS, spd.MotifShape(4, stacks=5, classes=3), dish, epochs=1)
    with pytest.raises(ValueError, match=r"Adam\.lr is -1, expected at least 0"):
        spd.Adam(lr=-1)
    with pytest.raises(ValueError, match=r"Adam\.betas is \(0\.9, 1\.0\), expected two of at least 0 and below 1"):
        spd.Adam(betas=(0.9, 1.0))
    with pytest.raises(ValueError, match=r"SGD\.momentum is nan, expected at least 0"):
        spd.SGD(momentum=float("nan"))
    with pytest.raises(ValueError, match=r"RMSProp\.alpha is 1\.5, expected 0 to 1"):
        spd.RMSProp(alpha=1.5)
    with pytest.raises(ValueError, match="metric is 'error'"):
        spd.motif_gradient(CELLS, TINY, dish.images, dish.labels, [], metric="error")
    start = train(CELLS, dish, epochs=0).initial
    with pytest.raises(ValueError, match=r"factors has shape \(1,\), expected \(3,\)"):
        spd.motif_gradient(CELLS, TINY, dish.images, dish.labels, start, factors=[1.0])


@pytest.mark.parametrize(
    ("isa", "dtype", "epochs", "bound"),
    [("avx2", "float64", 10, 1e-9), ("avx512", "float32", 1, 2e-5), ("avx2", "float32", 1, 2e-5)],
)
def test_instruction_sets_agree(isa, dtype, epochs, bound):
    """Twenty steps in double, two in float32: rounding differs, and nothing else. Bounds leave room for its growth: double has 7 digits
    over for twenty steps, float32 a factor of 300 over 2^-24 for sums of hundreds of terms. AVX-512 has no double of its own."""
    script = textwrap.dedent("""
        import json, sys
        import spd_fast as spd
        from spd_fast import _core
        cells = [spd.NatsCell.parse(cell["nats"]) if "nats" in cell else spd.Cell(**cell) for cell in json.loads(sys.argv[1])]
        dish = spd.Dish.random(per_class=4)
        r = spd.train_motifs(cells, spd.MotifShape(11), dish, epochs=int(sys.argv[2]), dtype=sys.argv[3], optimizer=spd.Adam(1e-3))
        print(json.dumps({"isa": _core.isa, "loss": r.loss.tolist()}))
    """)
    cells = json.dumps([cell.to_json() for cell in (*CELLS, EDGES)])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

    def run(name):
        command = [sys.executable, "-c", script, cells, str(epochs), dtype]
        return subprocess.run(command, capture_output=True, text=True, env=environment | {"SPD_FAST_ISA": name})

    forced = run(isa)
    if "expected one of those that this machine runs" in forced.stderr:
        pytest.skip(f"this machine does not run {isa}")
    forced, baseline = (json.loads(r.stdout) for r in (forced, run("baseline")))
    assert forced["isa"] == isa
    np.testing.assert_allclose(forced["loss"], baseline["loss"], rtol=bound)


def test_an_unknown_instruction_set_is_one_clear_error():
    done = subprocess.run(
        [sys.executable, "-c", "import spd_fast.engine.training"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "SPD_FAST_ISA": "sse9"},
    )
    assert "SPD_FAST_ISA is 'sse9', expected one of those that this machine runs" in done.stderr


def test_reading_packed_motifs(dish):
    """Read often, in any company, they show what `motif_gradient` shows; other image sizes are refused."""
    trained = train(CELLS, dish, epochs=1).parameters
    motifs = pack_motifs(CELLS, TINY, trained, dish.images.shape[1:])
    assert len(motifs) == len(CELLS)
    values, d_images = spd.motif_gradient(CELLS, TINY, dish.images, dish.labels, trained, metric="loss")
    for rows in ([0, 1, 2], [2, 0]):
        reading = read_motifs(motifs.take(rows), dish.images, dish.labels, metric="loss")
        np.testing.assert_array_equal(reading.loss, values[rows])
        np.testing.assert_array_equal(reading.d_images, d_images[rows])
    twice = read_motifs(motifs + motifs, dish.images, dish.labels, gradients=False)
    np.testing.assert_array_equal(twice.loss, np.tile(values, 2))
    assert twice.d_images.shape == (0, *dish.images.shape)
    with pytest.raises(
        ValueError, match=r"images has shape \(2, 3, 20, 20\), expected \(N, 3, 8, 8\), for which the motifs"
    ):
        read_motifs(motifs, np.zeros((2, 3, 20, 20), np.float32), np.zeros(2, int))
    with pytest.raises(ValueError, match="motifs is empty, expected at least one"):
        read_motifs(motifs.take([]), dish.images, dish.labels)
    with pytest.raises(ValueError, match="read-only"):
        motifs.weights[0][0] = 1


def packed(shape=TINY, image_shape=(3, 8, 8), dtype="float32"):
    return pack_motifs([SKIP], shape, [initial_parameters(SKIP, shape)], image_shape, dtype=dtype)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            packed(image_shape=(3, 64, 64)),
            r"image_shape \(3, 64, 64\) are added to motifs of image_shape \(3, 8, 8\), expected",
        ),
        (packed(replace(TINY, image_channels=1), (1, 8, 8)), r"motifs of image_shape \(1, 8, 8\) are added"),
        (packed(replace(TINY, classes=2)), "motifs of classes 2 are added to motifs of classes 3, expected the same"),
        (
            packed(dtype="float64"),
            "motifs of element float64 are added to motifs of element float32, expected the same",
        ),
    ],
)
def test_packed_motifs_that_do_not_belong_together(dish, other, message):
    """They were read out of bounds, or showed made-up losses; the engine itself refuses what was put together otherwise."""
    motifs = packed()
    with pytest.raises(ValueError, match=message):
        motifs + other
    with pytest.raises(TypeError, match="unsupported operand"):
        motifs + 1
    joined = replace(motifs, specs=motifs.specs + other.specs, weights=motifs.weights + other.weights)
    if other.element == motifs.element:
        with pytest.raises(ValueError, match=r"(images|labels) has shape .*, expected \["):
            read_motifs(joined, dish.images, dish.labels)
    else:
        with pytest.raises(TypeError, match="incompatible function arguments"):
            read_motifs(joined, dish.images, dish.labels)


def arrays_of_a_caller(side):
    """Everything that a caller hands over as arrays, in the very form that the engine takes."""
    rng = np.random.default_rng(0)
    n, epochs = 40, 20
    steps = epochs * n // 5
    return {
        "images": rng.standard_normal((n, 3, side, side)).astype(np.float32),
        "labels": rng.uniform(size=(n, 3)).astype(np.float32),
        "valid_images": rng.standard_normal((n, 3, side, side)).astype(np.float32),
        "valid_labels": rng.uniform(size=(n, 3)).astype(np.float32),
        "order": np.tile(np.arange(n), (epochs, 1)),
        "schedule": np.full(steps, 1e-3),
        "step_weights": np.full(steps, 0.1),
        **initial_parameters(CHAIN, TINY),
    }


def door(name, a, progress, work):
    """Results of one of the functions that hand arrays to the engine, of as many cells as give it enough work."""
    cells, threads = [CHAIN] * (100 * work), 1
    weights = [{name: a[name] for name in initial_parameters(CHAIN, TINY)}] * len(cells)
    how = {"threads": threads, "progress": progress}
    if name in ("logit_gradient", "activation_agreements"):
        found = getattr(probes, name)(cells, TINY, a["images"], weights, **how)
        return [found] if name == "activation_agreements" else [found[1]]
    if name == "parameter_gradient":
        loss, _, d_images = parameter_gradient(cells, TINY, a["images"], a["labels"], weights, **how)
        return [loss, d_images]
    dish = spd.Dish(*(a[name] for name in ("images", "labels", "valid_images", "valid_labels")))
    how |= {"epochs": len(a["order"]), "batch_size": 5, "order": a["order"], "schedule": a["schedule"], "init": weights}
    if name == "train_motifs":
        result = spd.train_motifs(cells, TINY, dish, **how)
        return [result.loss, result.train.logits, result.valid.logits]
    some = {**how, "init": weights[: 10 * work], "step_weights": a["step_weights"]}
    found = spd.motif_hypergradient(cells[: 10 * work], TINY, dish, **some)
    return [found.value, found.d_images, found.d_labels, found.d_valid_images, found.d_valid_labels, found.d_rates]


@pytest.mark.parametrize(
    ("name", "side"),  # the last three look at every image once: larger ones keep them at work until the first callback
    [
        ("train_motifs", 8),
        ("motif_hypergradient", 8),
        ("parameter_gradient", 32),
        ("logit_gradient", 32),
        ("activation_agreements", 64),
    ],
)
def test_what_is_checked_is_what_is_used(name, side):
    """Whoever writes to the caller's arrays while the engine reads them changes nothing."""
    for work in (1, 4, 16):  # a fast processor needs more of it
        expected = door(name, arrays_of_a_caller(side), None, work)
        arrays, shares = arrays_of_a_caller(side), []

        def scribble(share, arrays=arrays, shares=shares):
            shares.append(share)
            for array in arrays.values():
                array.fill(2**40)

        found = door(name, arrays, scribble, work)
        if shares[0] < 1:
            break
    assert shares[0] < 1, "too quick for this test: nothing was written while the engine was at work"
    for got, want in zip(found, expected, strict=True):
        np.testing.assert_array_equal(got, want)


def test_weighted_sum_leaves_out_what_has_no_weight():
    arrays = np.array([[1.0, 2.0], [np.nan, np.inf], [3.0, 5.0]])
    assert weighted_sum(np.array([2.0, 0.0, -1.0]), arrays).tolist() == [-1.0, -1.0]
