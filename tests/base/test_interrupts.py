"""Ctrl-C, which Python gives to its main thread alone."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import spd_fast._core as _core
from processes import started
from spd_fast import MOTIF_C, Dish, TruthTable, train_motifs
from spd_fast.base.interrupts import stopped_with_main
from spd_fast.nasbench101 import enumerate_space
from spd_fast.predictors.gaussian_process import fit_gaussian_process


def enumerate_often() -> None:
    while True:
        enumerate_space(threads=1)


def test_enumerating_stops_in_the_main_thread() -> None:
    """At once, and nothing of it goes on in the background."""
    threading.Timer(0.3, interrupt_main).start()
    with pytest.raises(KeyboardInterrupt):
        enumerate_often()
    began = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - began < 0.25


def fit_processes_often() -> None:
    x = np.random.default_rng(0).normal(size=(30, 2))
    for _ in range(10_000):
        fit_gaussian_process([x], x[:, 0])


@pytest.mark.parametrize("work", [enumerate_often, fit_processes_often])
def test_work_in_another_thread_stops_with_the_main_thread(work: Callable[[], None]) -> None:
    try:
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(work)
            time.sleep(0.3)
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert isinstance(future.exception(), KeyboardInterrupt)


def test_what_a_look_raises_ends_the_call() -> None:
    class StoppedError(Exception):
        pass

    def look(share: float) -> None:
        raise StoppedError

    with pytest.raises(StoppedError):
        _core.nasbench.enumerate_space(1, look)


def test_progress_passes() -> None:
    shares: list[float] = []
    assert stopped_with_main(shares.append) == shares.append
    with ThreadPoolExecutor(1) as pool:
        report = pool.submit(stopped_with_main, shares.append).result()
        silent = pool.submit(stopped_with_main, None).result()
    assert report is not None
    assert silent is not None
    report(0.5)
    silent(0.7)
    assert shares == [0.5]
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            report(1.0)
    assert shares == [0.5]


def long_training() -> None:
    """Minutes of it."""
    cells = list(TruthTable.load().sample(4, 0).cells)
    train_motifs(cells, MOTIF_C, Dish.random(per_class=100), epochs=3000, threads=1)


def interrupt_main() -> None:
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def test_trainings_of_other_threads_stop_with_the_main_thread() -> None:
    """Those that run, and those that wait for their turn."""
    futures = []

    def wait_for_them() -> None:
        with ThreadPoolExecutor(2) as pool:
            futures.extend(pool.submit(long_training) for _ in range(4))
            threading.Timer(2.0, interrupt_main).start()
            futures[0].result()

    with pytest.raises(KeyboardInterrupt):
        wait_for_them()
    assert all(isinstance(each.exception(), KeyboardInterrupt) for each in futures)


def test_trainings_of_other_threads_stop_at_the_end_of_an_interrupted_process(tmp_path: Path) -> None:
    """No block waits for them: Python does when the interrupt has ended the script."""
    script = tmp_path / "script.py"
    script.write_text(
        "import threading, time\n"
        "from test_interrupts import long_training\n"
        "threading.Thread(target=long_training).start()\n"
        "print('ready', flush=True)\n"
        "time.sleep(1000)\n"
    )
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1]), *sys.path]
    with started([sys.executable, script], env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)}) as process:
        assert process.reaches(lambda: "ready" in process.out)
        time.sleep(1)
        process.send(signal.SIGINT)
        assert process.reaches(process.ended, 60)
