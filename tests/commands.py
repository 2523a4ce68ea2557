"""Calls of the command line inside the test's own process."""

from typing import Any

from typer.testing import CliRunner

from spd_fast.cli import app


def call(*arguments: object) -> Any:
    """Run a command; return its exit code and what it printed."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def succeed(*arguments: object) -> str:
    """Run a command that ends well; return its standard output."""
    result = call(*arguments)
    assert result.exit_code == 0, result.output
    return str(result.stdout)


def fail(*arguments: object) -> str:
    """Run a command that is refused; return its error in one line."""
    result = call(*arguments)
    assert result.exit_code == 2, result.output
    return " ".join(str(result.stderr).split())
