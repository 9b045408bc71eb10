import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

import medseg
from medseg import cli
from medseg.cli.main import COMMANDS
from medseg.cli.main import RESUMABLE as SAVED
from medseg.cli.main import cli as group
from medseg.errors import DataError
from medseg.runs.record import RESUMABLE


def modules_after(code):
    done = subprocess.run([sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, check=False)
    return done, {
        line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")
    }


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["train", "--help"],
        ["predict", "--help"],
        ["data", "--help"],
        ["evaluate", "--help"],
        ["runs", "--help"],
    ],
)
def test_help_imports_neither_torch_nor_numpy(arguments):
    done, modules = modules_after(f"from medseg.cli import main; main({arguments!r})")
    assert done.returncode == 0
    assert "medseg.cli.main" in modules
    assert not {"torch", "numpy", "monai", "nibabel", "rich.console"} & modules


def test_the_door_imports_nothing_heavy():
    _, modules = modules_after("import medseg; medseg.__version__; dir(medseg)")
    assert "medseg" in modules
    assert not {"torch", "numpy", "monai", "click"} & modules


def test_data_jobs_do_not_import_torch():
    _, modules = modules_after("import medseg; medseg.discover; medseg.prepare; medseg.write_phantom")
    assert "medseg.data.prepare_cases" in modules
    assert not {"torch", "monai", "ignite"} & modules


def test_evaluating_folders_does_not_import_torch():
    code = "from medseg.evaluation import scores, error_maps; from medseg.report import save_evaluation_page"
    _, modules = modules_after(code)
    assert {"medseg.metrics.surface", "medseg.report.evaluation_page"} <= modules
    assert not {"torch", "monai", "ignite"} & modules


def test_help_lists_every_command(capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main(["--help"])
    assert exit.value.code == 0
    printable = capsys.readouterr().out
    assert all(name in printable for name in COMMANDS)


def test_a_mistyped_command_names_the_nearest(capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main(["trian"])
    assert exit.value.code == 2
    assert "Did you mean 'train'?" in capsys.readouterr().err


@pytest.fixture
def broken(monkeypatch):
    """A command that fails as it is told to."""

    def make(error):
        @click.command()
        def command():
            raise error

        monkeypatch.setattr(group, "get_command", lambda ctx, name: command)

    return make


def wrapped(cause):
    try:
        try:
            raise cause
        except Exception as inner:
            raise RuntimeError("applying transform LoadImaged") from inner
    except RuntimeError as error:
        return error


def test_a_medseg_error_is_one_line_and_exit_code_1_even_inside_another_error(broken, capsys):
    broken(wrapped(DataError("ct.nii.gz", "the file is cut off", "9 of 12 bytes", "Copy it again.")))
    with pytest.raises(SystemExit) as exit:
        cli.main(["train"])
    assert exit.value.code == 1
    assert capsys.readouterr().err == "Error: ct.nii.gz: the file is cut off (9 of 12 bytes). Copy it again.\n"


def test_an_error_that_is_not_ours_is_not_hidden(broken):
    broken(ZeroDivisionError("a fault of our own"))
    with pytest.raises(ZeroDivisionError, match="a fault of our own"):
        cli.main(["train"])


def test_ctrl_c_is_exit_code_130(broken, capsys):
    broken(KeyboardInterrupt())
    with pytest.raises(SystemExit) as exit:
        cli.main(["train"])
    assert exit.value.code == 130
    assert "Interrupted" in capsys.readouterr().err


def test_a_training_that_was_stopped_tells_how_to_resume_it(broken, capsys):
    assert SAVED == RESUMABLE
    broken(SystemExit(RESUMABLE))
    with pytest.raises(SystemExit) as exit:
        cli.main(["train"])
    assert exit.value.code == 75
    assert "Resume it with the same command, or with: medseg runs resume" in capsys.readouterr().err


def test_another_exit_code_says_nothing(broken, capsys):
    broken(SystemExit(3))
    with pytest.raises(SystemExit) as exit:
        cli.main(["train"])
    assert (exit.value.code, capsys.readouterr().err) == (3, "")


CHILDREN = """
import multiprocessing, subprocess, sys
sys.path = [path for path in sys.path if path]
from medseg.cli import main
try:
    main(["--version"])
except SystemExit:
    pass
print(subprocess.run([sys.executable, "-m", "medseg", "--version"], capture_output=True, text=True))
process = multiprocessing.get_context("spawn").Process(target=print)
process.start()
process.join()
"""


def test_no_process_that_a_command_starts_imports_from_the_working_directory(tmp_path):
    for name in ("medseg", "monai", "multiprocessing", "selectors"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')")
    environment = {**os.environ, "PYTHONPATH": str(Path(medseg.__file__).parents[1])}
    script = tmp_path.parent / f"{tmp_path.name}.py"  # as the console script, which lies elsewhere
    script.write_text(CHILDREN.replace("process =", "if __name__ == '__main__':\n  process =", 1)
                      .replace("\nprocess.", "\n  process."))  # fmt: skip
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert "returncode=0" in done.stdout, done.stdout
    assert medseg.__version__ in done.stdout.partition("returncode=0")[2]
    assert not (tmp_path / "canary").exists()
