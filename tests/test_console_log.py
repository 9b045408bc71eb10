"""The output of a detached process moves to its run's folder, from its first line on."""

import os
import subprocess
import sys

from medseg.console_log import redirect_output_to

PROGRAM = """
import subprocess, sys
from medseg.console_log import take_over
print("before")
take_over(sys.argv[1])
print("after")
print("said", file=sys.stderr)
sys.stdout.flush()
subprocess.run([sys.executable, "-c", "import os; print('child', 'MEDSEG_CONSOLE' in os.environ)"], check=True)
"""


def test_everything_printed_lies_in_the_runs_folder_and_the_starter_learns_where(tmp_path):
    run, early = tmp_path / "run", tmp_path / "early.log"
    run.mkdir()
    with early.open("wb") as output:
        environment = {**os.environ, "MEDSEG_CONSOLE": str(early)}
        command = [sys.executable, "-c", PROGRAM, str(run)]
        subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env=environment, check=True)
    assert sorted((run / "console.log").read_text().splitlines()) == ["after", "before", "child False", "said"]
    assert (run / "console.log").read_text().startswith("before")
    assert (tmp_path / "early.log.run").read_text() == str(run)
    if os.name == "posix":
        assert not early.exists()


def test_a_process_with_a_terminal_keeps_it(tmp_path, monkeypatch):
    monkeypatch.delenv("MEDSEG_CONSOLE", raising=False)
    redirect_output_to(tmp_path)
    assert not list(tmp_path.iterdir())
