"""The pages in docs/ and those at the top: links lead somewhere, files and names are there, and blocks of code run.

A block of code says in its first line what it is: `sh` and `python` run, `output` is what the block before it prints, and
`text` is only read. The blocks of a page run in their order, in one folder. A comment in front of a block says what it
needs that the package does not have (`<!-- needs: trained.csv -->`, a name in `STAND_INS`), and a second one what is
changed so that it does not take long (`<!-- small: --seeds 5 => --seeds 1 -->`).
"""

import gzip
import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from typer.main import get_command

import small
import spd_fast as spd
from spd_fast import recipes
from spd_fast.cli import app

PROJECT = Path(__file__).resolve().parent.parent
PAGES = sorted([*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md")])
TOPS = ("bench", "csrc", "docs", "examples", "spd_fast", "tests", "tools")
FILES = ["/" + path.relative_to(PROJECT).as_posix() for top in TOPS for path in PROJECT.joinpath(top).rglob("*.*")]


def prose(page: Path) -> str:
    """The page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """What links to the headings of a page are called: small letters, without punctuation, with hyphens for spaces."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> list[str]:
    """The links of a page to files or headings that are not there."""
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        place, _, anchor = link.partition("#")
        target = page.parent / place if place else page
        if link.startswith("https://"):
            continue
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    return broken


def missing_files(page: Path) -> list[str]:
    """The sources that a page names in code style, by whole paths or by their last parts, and that are not there."""
    named = (
        name
        for code in re.findall(r"`([^`\n]+)`", prose(page))
        for name in re.findall(r"[\w./]*\w\.[ch]pp|[\w./]*\w\.pyi?\b", code)
    )
    return [name for name in named if not any(file.endswith("/" + name) for file in FILES)]


def missing_names(page: Path) -> list[str]:
    """The dotted names of the package that a page has in code style, and that cannot be looked up. Names of file schemas are none."""
    named = re.findall(r"`(spd_fast(?:\.\w+)+)(?![\w/.])", prose(page))
    return [name for name in named if not is_there(name)]


def commands() -> dict[str, set[str]]:
    """The commands of the command line, each with its subcommands."""
    root = get_command(app)
    return {name: set(getattr(command, "commands", {})) for name, command in getattr(root, "commands", {}).items()}


def missing_commands(page: Path) -> list[str]:
    """The commands that a page has in code style or in blocks of code, and that are not there; and the recipes that it gives them."""
    text = page.read_text()
    codes = [*re.findall(r"`([^`\n]+)`", prose(page)), *re.findall(r"^```.*?^```", text, re.MULTILINE | re.DOTALL)]
    known, missing = commands(), []
    for code in codes:
        for name, sub in re.findall(r"\bspd-fast ([a-z][a-z-]*)(?: ([a-z][a-z-]*)\b)?", code):
            if name not in known or (known[name] and sub and sub not in known[name]):
                missing.append(f"{name} {sub}".strip())
        missing += [name for name in re.findall(r"--recipe (\w+)\b(?!\.json)", code) if not is_recipe(name)]
    return missing


def is_recipe(name: str) -> bool:
    """Whether a recipe comes with the package; a name in capitals stands for any."""
    return name in recipes.names() or name.isupper()


def is_there(name: str) -> bool:
    """Whether a dotted name is that of a module, or of something in a module."""
    module, _, attribute = name.rpartition(".")
    try:
        return hasattr(importlib.import_module(module), attribute) or bool(importlib.import_module(name))
    except ModuleNotFoundError:
        return False


def test_readme_is_read_in_a_few_minutes() -> None:
    text = (PROJECT / "README.md").read_text()
    assert len(text.split()) < 700
    assert max(map(len, text.splitlines())) <= 120


def test_the_walk_sees_what_is_broken(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# One: two\n[a](page.md#one-two) [b](#one) [c](none.md) `csrc/none.hpp` `plan/plan.cpp` `no_such.py` `spd_fast.dish.Dish` `spd_fast.dish.Fish` `spd_fast.no.Dish`\n"
        "`spd-fast truth build` `spd-fast truth bake` `spd-fast runs`\n```\nspd-fast run --recipe demo\nspd-fast run --recipe dome\nspd-fast rank cells.csv\n```\n"
    )
    assert broken_links(page) == ["#one", "none.md"]
    assert missing_files(page) == ["csrc/none.hpp", "no_such.py"]
    assert missing_names(page) == ["spd_fast.dish.Fish", "spd_fast.no.Dish"]
    assert missing_commands(page) == ["truth bake", "runs", "dome"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(PROJECT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    assert not broken_links(page)


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page.name != "CHANGELOG.md"],
    ids=lambda page: page.relative_to(PROJECT).as_posix(),
)
def test_files_and_names_are_there(page: Path) -> None:
    """But in the changelog, which names what was."""
    assert not missing_files(page)
    assert not missing_names(page)
    assert not missing_commands(page)


def test_every_row_of_the_coverage_says_what_runs_it() -> None:
    """By a command, a dotted name, a script or a recipe; or it says that it is not here."""
    lines = (PROJECT / "docs" / "coverage.md").read_text().splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")][2:]
    assert len(rows) > 20
    for row in rows:
        assert row[2].startswith("not here") or re.search(r"`(spd-fast [a-z]|spd_fast\.|bench/)", row[2]), row


# ---- blocks of code

GUIDES = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted(PROJECT.glob("docs/*.md"))]
"""Pages that users and contributors follow; those in docs/notes/ tell what was done."""
KINDS = ("sh", "python", "output", "text")
BLOCK = re.compile(r"(?P<marks>(?:^<!--[^\n]*-->\n)*)^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"<!-- (needs|small): (.*) -->")
TIME = re.compile(r"\b\d+(?:\.\d+)? (?:s|ms|min|seconds|minutes)\b|\b\d+:\d\d\b")
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


@dataclass(frozen=True)
class Block:
    """A block of code, what its comments say, and what it prints (None where the page does not say)."""

    kind: str
    text: str
    needs: tuple[str, ...] = ()
    printed: str | None = None


def blocks(text: str) -> list[Block]:
    """The blocks of a page that run, with their small settings."""
    found: list[Block] = []
    for match in BLOCK.finditer(text):
        kind, code, marks = match["kind"], match["text"], MARK.findall(match["marks"])
        assert kind in KINDS, f"a block of code says that it is {kind!r}, expected one of {KINDS}: {code[:60]!r}"
        if kind == "output":
            assert found, f"output of nothing: {code[:60]!r}"
            assert not found[-1].needs, f"output of what runs on a stand-in: {code[:60]!r}"
            found[-1] = Block(found[-1].kind, found[-1].text, printed=code)
        elif kind != "text":
            for old, new in (value.split(" => ") for name, value in marks if name == "small"):
                assert old in code, f"small settings replace {old!r}, which the block has not"
                code = code.replace(old, new)
            found.append(
                Block(kind, code, tuple(each for name, value in marks if name == "needs" for each in value.split()))
            )
    return found


def same(printed: str, stated: str) -> bool:
    """Whether a block printed what its page states: times may differ, and decimals by one in their last digit."""
    texts = ["\n".join(map(str.rstrip, TIME.sub("TIME", text).strip().splitlines())) for text in (printed, stated)]
    if len({NUMBER.sub("NUMBER", text) for text in texts}) == 2:
        return False
    pairs = zip(*([Decimal(number.replace(",", "")) for number in NUMBER.findall(text)] for text in texts), strict=True)
    return all(
        got == told or abs(got - told) <= Decimal((0, (1,), told.as_tuple().exponent)) < 1 for got, told in pairs
    )


def cells_file(path: Path, cells: spd.TruthTable, *, labelled: bool) -> None:
    """Write cells as people have them."""
    rows = ["name,matrix,ops" + ",accuracy" * labelled]
    for row, cell in enumerate(cells.cells):
        texts = (json.dumps(value).replace('"', '""') for value in (cell.matrix.tolist(), cell.ops))
        rows.append(",".join([f"c{row}", *(f'"{text}"' for text in texts), *[str(cells.accuracy[row])] * labelled]))
    path.write_text("\n".join(rows) + "\n")


def images_folder(path: Path) -> None:
    """Write a data set of random images as IDX files."""
    from spd_fast.images import IDX_FILES

    rng = np.random.default_rng(0)
    path.mkdir()
    for name, file in IDX_FILES.items():
        array = rng.integers(0, 256, (200, 8, 8), np.uint8) if "images" in name else np.arange(200, dtype=np.uint8) % 10
        head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
        (path / f"{file}.gz").write_bytes(gzip.compress(head + array.tobytes()))


STAND_INS: dict[str, Callable[[Path], object]] = {
    "trained.csv": lambda path: cells_file(path, spd.TruthTable.load().sample(20, seed=0), labelled=True),
    "candidates.csv": lambda path: cells_file(path, spd.TruthTable.load().sample(12, seed=1), labelled=False),
    "nb101_test108.npz": lambda path: spd.TruthTable.load().sample(160, seed=0).save(path),
    "nasbench101.npz": lambda path: spd.TruthTable.load().sample(160, seed=0).save(path),
    "fashion-mnist/": images_folder,
    "small.json": lambda path: path.write_text(small.CURVE.replace({"outer.epochs": 1, "outer.pool": 20}).to_json()),
}
"""Small files under the names of those that pages mention."""


@pytest.fixture
def workplace(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A folder with what a clone has, and an environment in which commands are found.

    `make` says what it would do, and pip whether it could: CI itself runs both for good.
    """
    for name in ("bench", "examples", "constraints.txt"):
        (tmp_path / name).symlink_to(PROJECT / name)
    python, project = shlex.quote(sys.executable), shlex.quote(str(PROJECT))
    launchers = {
        "spd-fast": f'exec {python} -m spd_fast "$@"',
        "python": f'exec {python} "$@"',
        "make": f'exec {shlex.quote(shutil.which("make") or "make")} -n -C {project} "$@"',
    }
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, line in launchers.items():
        (programs / name).write_text(f"#!/bin/sh\n{line}\n")
        (programs / name).chmod(0o755)
    path = os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    return tmp_path, os.environ | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": path,
        "COLUMNS": "80",
    }


def run(block: Block, folder: Path, environment: dict[str, str]) -> str:
    """Run a block of code; return what it prints. Every command of a shell must succeed."""
    for name in block.needs:
        path = folder / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            STAND_INS[name](path)
    command = [sys.executable, "-c", block.text] if block.kind == "python" else ["sh", "-e", "-c", block.text]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{block.text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.relative_to(PROJECT).as_posix())
def test_blocks_of_code_run(page: Path, workplace: tuple[Path, dict[str, str]]) -> None:
    """And print what the page says."""
    for block in blocks(page.read_text()):
        printed = run(block, *workplace)
        if block.printed is not None:
            assert same(printed, block.printed), f"{block.text}\nprints\n{printed}\nand not\n{block.printed}"


def unknown_options(text: str) -> list[str]:
    """Commands of `spd-fast` in code style, within sentences and tables, that are not there or lack an option that is named."""
    unknown = []
    for line in re.findall(r"`(spd-fast [^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)):
        command = get_command(app)
        for word in line.split()[1:]:
            commands = getattr(command, "commands", None)
            if commands is not None and re.fullmatch(r"[a-z-]+", word) and not word.startswith("-"):
                command = commands.get(word)
                if command is None:
                    break
            elif word.startswith("--"):
                options = {
                    name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)
                }
                if word.partition("=")[0] not in {*options, "--help"}:
                    command = None
                    break
        if command is None:
            unknown.append(line)
    return unknown


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.relative_to(PROJECT).as_posix())
def test_commands_in_sentences_are_there(page: Path) -> None:
    assert not unknown_options(page.read_text())


def test_blocks_that_are_wrong_are_found(workplace: tuple[Path, dict[str, str]]) -> None:
    page = "<!-- needs: small.json -->\n<!-- small: c.json => small.json -->\n```sh\ncat c.json\n```\n```python\nprint(0.5)\n```\n```output\n0.6\n```\n"
    first, second = blocks(page)
    assert first == Block("sh", "cat small.json\n", ("small.json",))
    assert '"name": "curve"' in run(first, *workplace)
    assert second.printed == "0.6\n"
    assert same(run(second, *workplace), "0.6")
    for wrong in ("0.7", "0.52", "0.5 0.5", "x"):
        assert not same("0.5", wrong)
    assert not same("12", "13")
    assert same("12 cells in 3.1 s", "12 cells in 4 s")
    for failing in (Block("sh", "spd-fast none; true"), Block("sh", "make none"), Block("python", "none")):
        with pytest.raises(AssertionError, match="none"):
            run(failing, *workplace)
    with pytest.raises(AssertionError, match="expected one of"):
        blocks("```\nls\n```\n")
    with pytest.raises(AssertionError, match="which the block has not"):
        blocks("<!-- small: a => b -->\n```sh\nls\n```\n")
    assert unknown_options("`spd-fast none` `spd-fast rank --out x` `spd-fast rank --none` `spd-fast truth none`") == [
        "spd-fast none",
        "spd-fast rank --none",
        "spd-fast truth none",
    ]
