"""What must hold of the code as a whole: layers, lazy imports, types, docstrings, one version."""

import ast
import doctest
import importlib
import importlib.metadata
import importlib.util
import inspect
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import spd_fast

PACKAGE = Path(__file__).resolve().parent.parent / "spd_fast"

FLOORS = [
    {"_core"},
    {"base"},
    {"spaces", "images"},
    {"motif"},
    {"learnables"},
    {"dish", "recipes"},
    {"engine", "reference", "nasbench101"},
    {"torch", "scoring"},
    {"truth", "supernet"},
    {"outer", "natsbench"},
    {"predictors"},
    {"scoreboard", "bench", "ranking", "paper"},
    {"report"},
    {"cli"},
    {"__main__"},
]
"""Folders of spd_fast/ and the files beside them, from the ground up: each imports from lower floors alone."""
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

TRAINING_FOLDER = "engine"
DESCRIPTIVE = {
    "version",
    "compiler",
    "flags",
    "isa",
    "default_threads",
    "fma_peak",
    "clock_rate",
    "read_rate",
    "write_rate",
}
"""What other modules may read from the extension: words about the build and the machine."""
MEASURED = {"bench.kernels": {"kernels"}}
"""What else a bench measures, by module."""
BENCHMARK_FOLDER = "nasbench101"
"""Alone reads the benchmark's files and enumerates its space with the extension."""

TORCH = {
    "torch",
    "reference.pytorch",
    *(f"outer.{name}" for name in ("fit", "forms", "losses", "measure", "optimizers", "ridge")),
    "predictors.bananas",
}
"""Modules that load PyTorch."""
SKLEARN = {f"predictors.{name}" for name in ("bananas", "gaussian_process", "regressor", "spd")}
"""Modules that load scikit-learn."""

CSRC = PACKAGE.parent / "csrc"
ENGINE_LAYERS = [
    {"simd.hpp", "span.hpp", "random.hpp", "threads", "nasbench"},  # know nothing of motifs
    {"plan"},
    {"kernels"},
    {"checks"},
    {"engine.hpp"},
    {"network"},
    {"loops"},
    {"isa"},
    {"calls"},
    {"bind"},
]
"""Folders of csrc/ and the files beside them, from the ground up. Kernels take a team of threads, so threads lie below them."""
ENGINE_RANK = {room: rank for rank, rooms in enumerate(ENGINE_LAYERS) for room in rooms}
SOURCES = sorted(path.relative_to(CSRC).as_posix() for path in CSRC.rglob("*.?pp"))

MODULES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
    if path != PACKAGE / "__init__.py"
)


def path_of(module: str) -> Path:
    path = PACKAGE.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def source_of(module: str) -> ast.Module:
    return ast.parse(path_of(module).read_text())


def names_imported(module: str) -> Iterator[str]:
    """What `module` imports of the package, inside functions and for type checking too: dotted names without ``spd_fast``.

    Where a name of `spd_fast` itself comes from stands in a private table alone.
    """
    public = spd_fast._HOME_OF
    for node in ast.walk(source_of(module)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("spd_fast.")]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively: write the whole name"
            if node.module == "spd_fast":
                names = [f"spd_fast.{public.get(alias.name, alias.name)}" for alias in node.names]
            elif node.module and node.module.startswith("spd_fast."):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (name.removeprefix("spd_fast.") for name in names if name != "spd_fast.__version__")


def rooms_imported(module: str) -> Iterator[str]:
    """The folders of the package, and the files beside them, that `module` imports."""
    yield from (name.split(".")[0] for name in names_imported(module))


def modules_imported(module: str) -> Iterator[str]:
    """The files of the package that `module` imports: what a package's ``__init__`` hands on counts as that file."""
    for name in names_imported(module):
        parent = name.rpartition(".")[0]
        if name in MODULES:
            yield name
        elif parent in MODULES:
            yield parent


def top_level_imports(module: str) -> Iterator[str]:
    """The packages that loading `module` imports: everything outside functions and TYPE_CHECKING blocks."""
    pending: list[ast.AST] = [source_of(module)]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]
        pending += ast.iter_child_nodes(node)


def test_the_walk_sees_the_package() -> None:
    assert {"spaces.cell", "truth.table", "engine.training"} <= set(MODULES)
    assert "spaces" in set(rooms_imported("motif"))
    assert "_core" in set(rooms_imported("engine.training"))
    assert "numpy" in set(top_level_imports("spaces.cell"))


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    room = module.split(".")[0]
    assert room in FLOOR, f"{room} stands on no floor: add it to FLOORS here and to the tree in docs/architecture.md"
    for imported in rooms_imported(module):
        assert imported in FLOOR, f"{module} imports {imported}, which stands on no floor"
        assert imported == room or FLOOR[imported] < FLOOR[room], (
            f"{module} imports {imported}, which is not below {room}"
        )


def test_imports_go_round_in_no_circle() -> None:
    """Inside folders too, file by file."""
    edges = {module: set(modules_imported(module)) - {module} for module in MODULES}
    while leaves := {module for module, imported in edges.items() if not imported}:
        edges = {module: imported - leaves for module, imported in edges.items() if module not in leaves}
    assert not edges, f"these modules import each other: {sorted(edges)}"


def included(source: str) -> Iterator[str]:
    """The files of csrc/ that `source` includes, as paths from there."""
    folder = CSRC / Path(source).parent
    for name in re.findall(r'^#include "(.+)"', (CSRC / source).read_text(), re.MULTILINE):
        yield (folder / name).resolve().relative_to(CSRC).as_posix()


def test_the_walk_sees_the_engine() -> None:
    assert "simd.hpp" in set(included("kernels/conv3x3.hpp"))
    assert "bind/module.cpp" in SOURCES


@pytest.mark.parametrize("source", SOURCES)
def test_includes_point_down(source: str) -> None:
    room = source.split("/")[0]
    assert room in ENGINE_RANK, (
        f"{room} stands in no layer: add it to ENGINE_LAYERS here and to the tree in docs/architecture.md"
    )
    for other in included(source):
        below = other.split("/")[0]
        assert below == room or ENGINE_RANK[below] < ENGINE_RANK[room], f"{source} ({room}) includes {other}, above it"
        if below == "nasbench":
            assert room == "nasbench" or source == "bind/nasbench.cpp", f"{source} includes {other}"


def test_includes_go_round_in_no_circle() -> None:
    edges = {source: set(included(source)) for source in SOURCES}
    while leaves := {source for source, others in edges.items() if not others}:
        edges = {source: others - leaves for source, others in edges.items() if source not in leaves}
    assert not edges, f"these files include each other: {sorted(edges)}"


@pytest.mark.parametrize("module", MODULES)
def test_only_one_folder_trains_with_the_extension(module: str) -> None:
    if module.split(".")[0] == TRAINING_FOLDER:
        return
    touched = {
        node.attr
        for node in ast.walk(source_of(module))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "_core"
    }
    direct = {
        alias.name
        for node in ast.walk(source_of(module))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("spd_fast._core")
        for alias in node.names
    }
    foreign = (touched | direct) - DESCRIPTIVE - MEASURED.get(module, set())
    if module.split(".")[0] == BENCHMARK_FOLDER:
        foreign -= {"nasbench"}
    assert not foreign, f"{module} uses {sorted(foreign)} of _core"


MOST_PARAMETERS = 12


@pytest.mark.parametrize("module", MODULES)
def test_functions_take_few_parameters(module: str) -> None:
    """But public ones, whose keywords are for people, and commands, whose options are."""
    public = {"train_motifs", "motif_hypergradient", "build_truth", "motif_metrics"}
    for node in ast.walk(source_of(module)):
        if isinstance(node, ast.FunctionDef) and node.name not in public and not module.startswith("cli."):
            n = len([*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs])
            assert n <= MOST_PARAMETERS, f"{module}.{node.name} takes {n} parameters: make a record of them"


def test_reports_need_no_torch() -> None:
    script = "import sys, spd_fast.report.run, spd_fast.report.board; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_reference_shares_no_code_with_the_engine() -> None:
    assert not set(rooms_imported("reference.pytorch"))


@pytest.mark.parametrize("module", MODULES)
def test_heavy_packages_stay_where_they_belong(module: str) -> None:
    imported = set(top_level_imports(module))
    assert "numba" not in imported or module == "spaces.table_loops"
    assert "torch" not in imported or module in TORCH
    assert "jax" not in imported or module == "reference.jax"
    assert "matplotlib" not in imported
    assert "sklearn" not in imported or module in SKLEARN
    assert not imported & {"tensorflow", "pickle"}


def test_import_is_light() -> None:
    """Best of five fresh interpreters, so that a busy machine does not decide."""
    heavy = ["torch", "numba", "matplotlib", "pydantic", "scipy", "sklearn", "numpy"]
    script = (
        "import sys, time, json; start = time.perf_counter(); import spd_fast; spent = time.perf_counter() - start; "
        f"print(json.dumps([spent, [name for name in {heavy} if name in sys.modules], dir(spd_fast)]))"
    )
    runs = [
        json.loads(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)
        for _ in range(5)
    ]
    assert runs[0][1] == []
    assert min(spent for spent, _, _ in runs) < 0.3
    assert set(spd_fast.__all__) <= set(runs[0][2])


@pytest.mark.parametrize("name", sorted(spd_fast.__all__))
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(spd_fast, name)
    assert value.__doc__
    if inspect.isclass(value) or inspect.isfunction(value):
        assert value.__module__ == f"spd_fast.{spd_fast._HOME_OF[name]}"
        assert_documented(value)


@pytest.mark.parametrize("module", MODULES)
def test_every_exported_name_is_documented(module: str) -> None:
    if module == "reference.jax":
        pytest.importorskip("jax", reason="JAX is an extra of the benches")
    loaded = importlib.import_module(f"spd_fast.{module}")
    assert loaded.__doc__, f"spd_fast.{module} has no docstring"
    for name in exported(loaded):
        assert_documented(getattr(loaded, name))


def exported(module: ModuleType) -> list[str]:
    names = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
    values = {name: getattr(module, name) for name in names}
    return [
        name
        for name, value in values.items()
        if (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__ == module.__name__
    ]


def assert_documented(value: object) -> None:
    name = value.__qualname__  # type: ignore[attr-defined]
    text = value.__doc__ or ""
    assert text.strip(), f"{name} has no docstring"
    assert not text.startswith(f"{name}("), f"{name} has only the docstring that dataclass makes"
    if inspect.isclass(value):
        for attribute, member in vars(value).items():
            function = (
                getattr(member, "fget", None) or getattr(member, "func", None) or getattr(member, "__func__", member)
            )
            if (
                not attribute.startswith("_")
                and inspect.isfunction(function)
                and function.__module__ == value.__module__
            ):
                assert (function.__doc__ or "").strip(), f"{name}.{attribute} has no docstring"


@pytest.mark.parametrize("module", [module for module in MODULES if ">>> " in path_of(module).read_text()])
def test_examples_in_docstrings_run(module: str) -> None:
    found = doctest.testmod(importlib.import_module(f"spd_fast.{module}"))
    assert found.attempted > 0
    assert found.failed == 0


def test_unknown_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="module 'spd_fast' has no attribute 'no_such_name'"):
        spd_fast.no_such_name  # noqa: B018


def test_versions_agree(project_dir: Path) -> None:
    from spd_fast import _core

    assert _core.version == spd_fast.__version__
    project = tomllib.loads((project_dir / "pyproject.toml").read_text())["project"]
    assert project.get("version", spd_fast.__version__) == spd_fast.__version__
    assert f"version: {spd_fast.__version__}\n" in (project_dir / "CITATION.cff").read_text()
    try:
        installed = importlib.metadata.version("spd_fast")
    except importlib.metadata.PackageNotFoundError:
        return
    assert installed == spd_fast.__version__


BACKGROUND = re.compile(
    r"\b(Popen|send_signal|killpg|terminate|multiprocessing|pexpect|pty|posix_spawn)\b|\bos\.(kill|fork|spawn\w+)\b|\.kill\("
)


def test_background_processes_are_started_in_one_place(project_dir: Path) -> None:
    """Others would leave them behind when a test fails: `processes.started` does not."""
    helpers = {"processes.py", "test_processes.py", "test_codebase.py"}
    ended = {
        "child = os.fork()"
    }  # in a script of tests/engine/test_training.py: the child has an alarm, and is waited for
    found = {
        f"{path.name}:{number}: {line.strip()}"
        for path in (project_dir / "tests").rglob("*.py")
        if path.name not in helpers
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if BACKGROUND.search(line) and line.strip() not in ended
    }
    assert not found


def test_hooks_use_the_pinned_tools(project_dir: Path) -> None:
    pinned = tomllib.loads((project_dir / "pyproject.toml").read_text())["project"]["optional-dependencies"]["lint"]
    hooks = (project_dir / ".pre-commit-config.yaml").read_text()
    assert {name.split("==")[0] for name in pinned} == {"ruff", "mypy", "clang-format", "codespell"}
    for requirement in pinned:
        name, version = requirement.split("==")
        found = set(re.findall(rf"\b{name}==([\d.]+)", hooks))
        assert found == {version} or name == "mypy", f"{name} is pinned to {version}, the hooks use {sorted(found)}"
