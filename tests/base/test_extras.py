"""What works without the extras, and what is said where one is missing."""

import subprocess
import sys
import textwrap

import pytest

from spd_fast.base.extras import explained, required

WITHOUT = textwrap.dedent("""
    import sys
    class Missing:
        def find_spec(self, name, path=None, target=None):
            if name in ("torch", "matplotlib", "PIL", "cmaes", "pandas", "pyarrow"):
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    sys.meta_path.insert(0, Missing())
""")
"""Makes a process as one in which no extra is installed."""


def run(script: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a process that has no extra."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT + textwrap.dedent(script)], capture_output=True, text=True, check=False
    )


def test_ranking_and_predicting_need_no_extra() -> None:
    done = run("""
        import os, tempfile
        import spd_fast as spd
        trained, others = spd.TruthTable.load().split(12, seed=0)
        path = os.path.join(tempfile.mkdtemp(), "p.npz")
        predictor = spd.SPDPredictor().fit(trained.cells, trained.accuracy)
        predictor.save(path)
        assert (spd.SPDPredictor.load(path).query(others.cells[:2]) == predictor.query(others.cells[:2])).all()
        print(len(spd.rank(list(others.cells[:3]), trained.cells, trained.accuracy).best(2)))
        from spd_fast.report.page import Made
        from spd_fast.report.ranking import ranking_page
        found = spd.rank(list(others.cells[:3]), trained.cells, trained.accuracy, budget=0)
        assert "Ranked candidates" in ranking_page(found, Made("", "", "", "")).html()
        spd.train_motifs(others.cells[:1], spd.MOTIF_C, spd.Dish.random(), epochs=1)
    """)
    assert done.stdout == "2\n", done.stderr


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("spd.fit_dish", "this needs PyTorch, which is not installed: pip install 'spd_fast[learn]'"),
        ("spd.BananasPredictor", "this needs PyTorch, which is not installed: pip install 'spd_fast[learn]'"),
        ("spd.torch", "this needs PyTorch, which is not installed: pip install 'spd_fast[learn]'"),
        (
            "spd.SPDPredictor(variant='dish').fit(cells, range(6))",
            "learning a dish needs PyTorch, which is not installed: pip install 'spd_fast[learn]'",
        ),
        (
            "spd.rank(cells, budget=0).to_pandas()",
            "to_pandas needs pandas, which is not installed: pip install 'spd_fast[tables]'",
        ),
    ],
)
def test_what_is_missing_is_named(call: str, message: str) -> None:
    done = run(f"import spd_fast as spd; cells = list(spd.TruthTable.load().cells[:6])\n{call}")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"ImportError: {message}"


@pytest.mark.parametrize("arguments", [["run", "--recipe", "demo", "--out", "x"], ["bench", "peak"]])
def test_commands_name_what_is_missing(arguments: list[str], tmp_path: object) -> None:
    done = run(
        f"import os; os.chdir({str(tmp_path)!r})\nfrom spd_fast.cli import main; sys.argv[1:] = {arguments!r}; main()"
    )
    assert done.returncode == 2
    assert "needs PyTorch, which is not installed: pip install 'spd_fast[learn]'" in " ".join(done.stderr.split())
    assert len(done.stderr.splitlines()) == 1


def test_other_errors_stay_what_they_are() -> None:
    error = ModuleNotFoundError("No module named 'odd'", name="odd")
    assert explained(error) is error
    with pytest.raises(KeyError):
        required("no_such_module_at_all", "this")
