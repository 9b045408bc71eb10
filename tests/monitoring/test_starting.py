import subprocess
import sys

from medseg.monitoring.settings import Settings, read_state
from medseg.monitoring.starting import command, environment, start


def test_the_feed_imports_neither_torch_nor_monai():
    code = (
        "import sys, trackio, wandb, medseg.monitoring.uploader\n"
        "import medseg.monitoring.switching, medseg.monitoring.syncing\n"
        "from medseg.monitoring.backends import trackio_run, wandb_run\n"
        "print([name for name in ('torch', 'monai', 'ignite') if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_the_environment_finds_medseg_and_leaves_other_runs_out(monkeypatch, repository):
    monkeypatch.setenv("WANDB_RUN_ID", "another")
    monkeypatch.setenv("WANDB_API_KEY", "k")
    found = environment()
    assert "WANDB_RUN_ID" not in found
    assert found["WANDB_API_KEY"] == "k"
    assert found["PYTHONPATH"].startswith(str(repository))


def test_it_runs_alone_from_any_place_and_writes_its_log(lab, finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Settings.of({"backend": "trackio"}).filled(finished).save(finished)
    process = start(finished)
    assert process.wait(30) == 0
    assert read_state(finished)["pid"] == process.pid
    assert (finished / "monitor" / "feed.log").is_file()
    assert command(finished, "--once")[-2:] == [str(finished), "--once"]
