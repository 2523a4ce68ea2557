"""Installs what a target of the Makefile needs, and says from the first second what is being installed and how far it is.

    .venv/bin/python tools/environment.py build           # what compiles the engine
    .venv/bin/python tools/environment.py base --package   # what ranking needs, then the package itself
    .venv/bin/python tools/environment.py test --package

pip first finds out which packages are missing. Their sizes are asked for before anything large is downloaded. How far pip
is, its folder of downloads and the environment tell. Without a terminal a line comes every ten seconds.
"""

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
import time
import tomllib
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
"""PyTorch's own index of its CPU builds. The public package index has, for Linux, its builds for graphics cards."""
PIP = [
    sys.executable,
    "-m",
    "pip",
    "install",
    "--disable-pip-version-check",
    "--no-input",
    "--constraint",
    "constraints.txt",
]
EVERY = 10.0
"""Seconds between two lines where the output is no terminal."""
PATIENCE = 5.0
"""Seconds that a server has to answer."""


class Progress:
    """One line that is written over on a terminal; elsewhere a new line, of one kind of work at most every `EVERY` seconds."""

    def __init__(self) -> None:
        self.began = self.told = time.monotonic()
        self.open = False

    def say(self, text: str) -> None:
        """Print a line that stays."""
        print(("\n" if self.open else "") + text, flush=True)
        self.open, self.began, self.told = False, time.monotonic(), time.monotonic()

    def update(self, text: str) -> None:
        """Print how far the work is."""
        now = time.monotonic()
        if sys.stdout.isatty():
            print(f"\r\033[K{text[:78]}", end="", flush=True)
            self.open = True
        elif now - self.told >= EVERY:
            print(f"  {text}", flush=True)
            self.told = now

    def seconds(self) -> str:
        """The time since the last line that stays."""
        return f"{time.monotonic() - self.began:.0f} s"


def requirements(name: str) -> list[str]:
    """The requirements of an extra, or of `build` or `base`, as pyproject.toml states them; extras of the package are looked up.

    An older pip downloads all that it would install when it is only asked what that is.
    """
    project = tomllib.loads(Path("pyproject.toml").read_text())
    groups = project["project"]["optional-dependencies"] | {
        "build": ["pip>=24.1", *project["build-system"]["requires"], "cmake"],
        "base": project["project"]["dependencies"],
    }
    found = [] if name in ("build", "base") else requirements("base")
    for each in groups[name]:
        inner = re.fullmatch(rf"{project['project']['name']}\[(.*)\]", each)
        found += [line for extra in inner[1].split(",") for line in requirements(extra)] if inner else [each]
    return list(dict.fromkeys(found))


def lines_of(command: list[str], folder: str) -> Iterator[str]:
    """Run a command whose temporary files lie in a folder; yield its lines, and an empty one every second without any.

    Raises
    ------
    SystemExit
        If the command fails, with its last lines.
    """
    queue: Queue[str | None] = Queue()
    lines: list[str] = []

    def read(stream: Iterable[str]) -> None:
        for line in stream:
            queue.put(line)
        queue.put(None)

    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=os.environ | {"TMPDIR": folder},
    ) as process:
        reader = Thread(target=read, args=[process.stdout])
        reader.start()
        try:
            while True:
                try:
                    line = queue.get(timeout=1.0)
                except Empty:
                    yield ""
                    continue
                if line is None:
                    break
                lines.append(line)
                yield line
        except BaseException:
            process.terminate()
            raise
        finally:
            reader.join()
    if process.returncode != 0:
        sys.exit("\n" + "".join(lines[-40:]) + f"\n{' '.join(command[1:])} failed with exit code {process.returncode}")


def missing(wanted: Iterable[str], index: list[str], progress: Progress) -> list[dict[str, Any]]:
    """Ask pip which packages it would install, in the order of their names.

    `fast-deps` reads the dependencies of a wheel from a part of it, where an index does not state them: PyTorch's build for
    graphics cards is not downloaded to find out how large it is.
    """
    name = "pip begins"
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        dry = ["--dry-run", "--use-feature=fast-deps", "--report", str(report)]
        for line in lines_of([*PIP, *index, *dry, *wanted], folder):
            looked_up = re.match(r"\s*(?:Collecting|Requirement already satisfied:) ([\w.-]+)", line)
            name = looked_up[1] if looked_up else name
            progress.update(f"finding out what is missing: {name}, {progress.seconds()}")
        found: list[dict[str, Any]] = json.loads(report.read_text())["install"]
    return sorted(found, key=lambda each: str(each["metadata"]["name"]).lower())


def size(url: str) -> int | None:
    """Bytes of a file on a server or on this machine; None where the server does not say."""
    try:
        request = urllib.request.Request(url, method="GET" if url.startswith("file:") else "HEAD")
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return int(answer.headers["Content-Length"])
    except (OSError, TypeError, ValueError):
        return None


def megabytes(sizes: Iterable[int | None]) -> str:
    """A sum of sizes in words."""
    known = [each for each in sizes if each is not None]
    return f"{sum(known) / 1e6:,.0f} MB" if known else "unknown size"


def sizes_in(folder: str) -> Iterator[int]:
    """Bytes of the files in a folder, in which another program works: what is gone by the time it is looked at counts nothing."""
    yield 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                yield Path(place, name).stat().st_size


def plain(name: str) -> str:
    """The name of a package as pip compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed() -> set[str]:
    """Names of the packages that are in the environment now."""
    return {plain(path.name.partition("-")[0]) for path in Path(sysconfig.get_path("purelib")).glob("*.dist-info")}


def install(wanted: list[str], index: list[str], progress: Progress) -> None:
    """Install what is missing; say before how large it is."""
    found = missing(wanted, index, progress)
    sizes = [size(each["download_info"]["url"]) for each in found]
    names = [f"{each['metadata']['name']} {each['metadata']['version']}" for each in found]
    if not found:
        return
    total = megabytes(sizes)
    progress.say(f"{len(found)} packages are missing, {total} to download:")
    for first in range(0, len(names), 5):
        progress.say("  " + ", ".join(names[first : first + 5]))
    torch = [row for row, name in enumerate(names) if name.startswith(("torch ", "nvidia-", "cuda-", "triton "))]
    if any(names[row].startswith("torch ") for row in torch):
        progress.say(f"of these, PyTorch and its libraries have {megabytes(sizes[row] for row in torch)}")
    pinned = [name.replace(" ", "==") for name in names]
    step = "beginning"
    with tempfile.TemporaryDirectory() as folder:
        for line in lines_of([*PIP, *index, "--no-deps", "--progress-bar", "off", *pinned], folder):
            work = re.match(r"\s*(Collecting|Downloading|Processing|Using cached) (?:\S*/)?([\w.]+)", line)
            step = f"{work[1].lower()} {work[2]}" if work else "unpacking" if line.startswith("Installing") else step
            ready = len(installed() & {plain(each["metadata"]["name"]) for each in found})
            here = megabytes([min(sum(sizes_in(folder)), sum(each or 0 for each in sizes))])
            progress.update(f"package {ready} of {len(found)}, {here} of {total} here, {step}, {progress.seconds()}")


def torch_index(wanted: list[str], progress: Progress) -> list[str]:
    """Options of pip by which it finds the CPU build of PyTorch, where that is wanted and can be reached."""
    if not any(re.match(r"torch\b(?!-)", each) for each in wanted):
        return []
    try:
        urllib.request.urlopen(urllib.request.Request(f"{CPU_INDEX}/torch", method="HEAD"), timeout=PATIENCE).close()
    except OSError:
        progress.say(
            f"{CPU_INDEX}, where PyTorch's CPU builds are, cannot be reached: the build that pip finds is taken"
        )
        return []
    progress.say(f"PyTorch's CPU build is taken from {CPU_INDEX}")
    return ["--extra-index-url", CPU_INDEX]


def compile_package(progress: Progress) -> None:
    """Build the engine and install the package as it lies here: a change of a Python file needs no new installation."""
    done = "step 0"
    with tempfile.TemporaryDirectory() as folder:
        for line in lines_of([*PIP, "--verbose", "--no-deps", "--no-build-isolation", "--editable", "."], folder):
            step = re.search(r"\[(\d+)/(\d+)\]", line)
            done = f"step {step[1]} of {step[2]}" if step else done
            progress.update(f"compiling the engine: {done}, {progress.seconds()}")


def main() -> None:
    """Install a group of requirements and, if asked for, the package."""
    parser = argparse.ArgumentParser(description="Install what a target of the Makefile needs.")
    parser.add_argument("group", help="build, base, or an extra of pyproject.toml")
    parser.add_argument("--package", action="store_true", help="compile and install the package as well")
    options = parser.parse_args()
    os.chdir(Path(__file__).resolve().parent.parent)
    progress = Progress()
    progress.say(f"installing the packages of the group {options.group!r} of pyproject.toml")
    wanted = requirements(options.group)
    install(wanted, torch_index(wanted, progress), progress)
    if options.package:
        progress.say("compiling the engine for every instruction set; this takes one to three minutes")
        compile_package(progress)
    progress.say(f"the group {options.group!r} is installed")


if __name__ == "__main__":
    main()
