import click
import pytest
from click.testing import CliRunner

from medseg.cli.lazy import LazyGroup

TABLE = {"runs": ("medseg.cli.runs", "All runs."), "broken": ("medseg.cli.nowhere", "Not there.")}


@pytest.fixture
def group():
    return LazyGroup("x", table=TABLE)


def test_help_imports_nothing(group):
    done = CliRunner().invoke(group, ["--help"])
    assert done.exit_code == 0
    assert "broken  Not there." in done.output


def test_a_command_is_imported_when_it_is_called(group):
    assert "List, show, compare" in CliRunner().invoke(group, ["runs", "--help"]).output
    assert isinstance(CliRunner().invoke(group, ["broken"]).exception, ModuleNotFoundError)
    assert group.get_command(click.Context(group), "run") is None


def test_a_mistyped_name_brings_the_nearest(group):
    done = CliRunner().invoke(group, ["rums"])
    assert done.exit_code == 2
    assert "There is no command 'rums'. Did you mean 'runs'?" in done.output
