"""The pages in docs/ and those at the top: every link leads somewhere, and every file and name that a page has is there."""

import importlib
import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
PAGES = sorted([*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md")])
TOPS = ("bench", "csrc", "docs", "examples", "spd_fast", "tests")
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


def is_there(name: str) -> bool:
    """Whether a dotted name is that of a module, or of something in a module."""
    module, _, attribute = name.rpartition(".")
    try:
        return hasattr(importlib.import_module(module), attribute) or bool(importlib.import_module(name))
    except ModuleNotFoundError:
        return False


def test_the_walk_sees_what_is_broken(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# One: two\n[a](page.md#one-two) [b](#one) [c](none.md) `csrc/none.hpp` `plan/plan.cpp` `no_such.py` `spd_fast.dish.Dish` `spd_fast.dish.Fish` `spd_fast.no.Dish`\n"
    )
    assert broken_links(page) == ["#one", "none.md"]
    assert missing_files(page) == ["csrc/none.hpp", "no_such.py"]
    assert missing_names(page) == ["spd_fast.dish.Fish", "spd_fast.no.Dish"]


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
