"""What makes the environment says what it does: requirements, progress, and what PyTorch is taken."""

import importlib.util
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def environment(project_dir: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """tools/environment.py as a module, in the project's folder, where lines come without delay."""
    specification = importlib.util.spec_from_file_location("environment", project_dir / "tools" / "environment.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    monkeypatch.chdir(project_dir)
    monkeypatch.setattr(module, "EVERY", 0.0)
    return module


def test_extras_are_looked_up(environment: ModuleType) -> None:
    """The tests need what ranking, learning and tables need; building needs none of these."""
    names = {
        group: {re.split(r"[<>=]", each)[0] for each in environment.requirements(group)}
        for group in ("build", "base", "learn", "test")
    }
    assert names["base"] < names["learn"] < names["test"]
    assert {"torch", "pandas", "pytest", "numpy"} <= names["test"]
    assert "torch" not in names["base"]
    assert "cmake" in names["build"]
    assert not names["build"] & names["base"]


def test_progress_is_told_before_a_command_ends(environment: ModuleType, tmp_path: Path) -> None:
    lines = environment.lines_of(
        [sys.executable, "-c", "import time; print('[1/2] one', flush=True); time.sleep(60)"], str(tmp_path)
    )
    assert next(line for line in lines if line) == "[1/2] one\n"
    assert next(lines) == ""
    lines.close()


def test_a_folder_may_vanish_while_it_is_measured(environment: ModuleType, tmp_path: Path) -> None:
    for name in "abcdef":
        (tmp_path / name / "inside").mkdir(parents=True)
        (tmp_path / name / "inside" / "file").write_bytes(b"1234")
    sizes = environment.sizes_in(str(tmp_path))
    assert next(sizes) == 0
    assert next(sizes) == 4
    shutil.rmtree(tmp_path)
    assert sum(sizes) <= 4 * 5
    assert sum(environment.sizes_in(str(tmp_path))) == 0


def test_a_command_that_fails_is_quoted(environment: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"(?s)no such thing.*failed with exit code 3"):
        list(
            environment.lines_of(
                [sys.executable, "-c", "import sys; print('no such thing'); sys.exit(3)"], str(tmp_path)
            )
        )


def test_what_is_there_is_not_installed(environment: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    environment.install(["numpy"], [], environment.Progress())
    said = capsys.readouterr().out
    assert "finding out what is missing" in said
    assert "package 1" not in said


def test_another_build_of_pytorch_is_announced(
    environment: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    progress = environment.Progress()
    assert environment.torch_index(["numpy>=2", "torchmetrics"], progress) == []
    monkeypatch.setattr(environment, "CPU_INDEX", tmp_path.as_uri())
    assert environment.torch_index(["numpy>=2", "torch>=2.2"], progress) == []
    assert f"{tmp_path.as_uri()}, where PyTorch's CPU builds are, cannot be reached" in capsys.readouterr().out
    (tmp_path / "torch").touch()
    assert environment.torch_index(["torch>=2.2"], progress) == ["--extra-index-url", tmp_path.as_uri()]


def test_sizes(environment: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "wheel").write_bytes(bytes(3_000_000))
    assert environment.size((tmp_path / "wheel").as_uri()) == 3_000_000
    assert environment.size((tmp_path / "none").as_uri()) is None
    assert environment.megabytes([3_000_000, None, 1_234_000_000]) == "1,237 MB"
    assert environment.megabytes([None]) == "unknown size"
