import json
import multiprocessing
import threading
import time
from pathlib import Path

import fsspec
import pytest

from medseg.errors import ConfigError, OutputError
from medseg.runs.metrics_log import read_rows
from medseg.training import backup
from medseg.training.backup import Backup
from medseg.training.restore import fetch

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(backup, "_FIRST_PAUSE", 0.02)
    monkeypatch.setattr(backup, "_LONGEST_PAUSE", 0.1)


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "runs" / "unet2d" / "20260101-000000-one"
    for name, text in {
        "run.json": json.dumps({"identity": "abc", "state": "interrupted", "started": "1", "iteration": 4, "epoch": 1}),
        "metrics.jsonl": '{"kind": "begin"}\n',
        "configs/train.json": "{}",
        "label_map.json": "{}",
        "monitor/settings.json": "{}",
        "monitor/wandb/big.bin": "not to be sent",
        "checkpoints/last.pt": "weights of epoch 1",
        "checkpoints/epoch_0001.pt": "weights of epoch 1",
        ".lock": "",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture(params=["folder", "memory"])
def url(request, tmp_path):
    if request.param == "folder":
        yield str(tmp_path / "elsewhere")
    else:
        yield "memory://backups"
        fsspec.filesystem("memory").store.clear()


def there(url):
    """What lies in the place, by path below the run's folder."""
    location, path = fsspec.core.url_to_fs(url)
    found = location.find(path)
    return {name.split("20260101-000000-one/")[-1]: location.cat_file(name).decode() for name in found}


def sent(url, run, *names):
    with Backup(url, run) as copy:
        copy.check()
        for name in names or ("checkpoints/last.pt", "checkpoints/epoch_0001.pt"):
            copy.send(run / name)
    return there(url)


def test_a_run_is_sent_with_all_that_it_needs_and_nothing_else(url, run):
    found = sent(url, run)
    assert set(found) == {
        "run.json", "metrics.jsonl", "configs/train.json", "label_map.json", "monitor/settings.json",
        "checkpoints/last.pt", "checkpoints/epoch_0001.pt",
    }  # fmt: skip
    assert all(text == (run / name).read_text() for name, text in found.items())


def test_a_run_comes_back_whole_where_there_is_none(url, run, tmp_path):
    wanted = sent(url, run)
    back = fetch(url, "abc", tmp_path / "other" / "unet2d")
    assert back == tmp_path / "other" / "unet2d" / run.name
    assert {path.relative_to(back).as_posix() for path in back.rglob("*") if path.is_file()} == set(wanted)
    assert (back / "checkpoints" / "last.pt").read_text() == "weights of epoch 1"
    assert fetch(url, "other identity", tmp_path / "third" / "unet2d") is None
    assert fetch(str(tmp_path / "nothing there"), "abc", tmp_path / "third" / "unet2d") is None


def progress(folder, iteration, state="interrupted"):
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, "iteration": iteration, "state": state}))


@pytest.mark.parametrize(("iteration", "state", "taken"), [(4, "failed", "here"), (9, "failed", "here"),
                                                          (2, "failed", "backup"), (2, "finished", None)])  # fmt: skip
def test_whichever_got_further_is_gone_on_with(url, run, iteration, state, taken, caplog):
    sent(url, run)
    progress(run, iteration, state)
    (run / "checkpoints" / "last.pt").write_text("what is here")
    found = fetch(url, "abc", run.parent)
    if taken is None:
        assert found is None
    else:
        assert found == run
        text = (found / "checkpoints" / "last.pt").read_text()
        assert text == ("what is here" if taken == "here" else "weights of epoch 1")
    older = list(run.parent.glob(".older/*/checkpoints/last.pt"))
    assert [path.read_text() for path in older] == (["what is here"] if taken == "backup" else [])
    assert ("got further than this machine" in caplog.text) == (taken == "backup")


def test_a_finished_run_is_not_fetched_and_one_that_says_it_runs_is_with_a_warning(url, run, tmp_path, caplog):
    progress(run, 9, "finished")
    sent(url, run)
    assert fetch(url, "abc", tmp_path / "a" / "unet2d") is None
    progress(run, 9, "running")
    sent(url, run)
    assert fetch(url, "abc", tmp_path / "b" / "unet2d") is not None
    assert "Make sure that it is not" in caplog.text


class Place(fsspec.get_filesystem_class("memory")):
    """A place that can be told to be slow or away."""

    protocol = "shaky"
    store = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012
    away, gate = False, threading.Event()
    opened = []  # noqa: RUF012

    def _open(self, path, mode="rb", **options):
        if mode == "wb":
            type(self).opened.append(path)
            self.gate.wait(30)
        if self.away:
            raise OSError("the line is dead")
        return super()._open(path, mode, **options)


@pytest.fixture
def shaky():
    fsspec.register_implementation("shaky", Place, clobber=True)
    Place.store, Place.away, Place.opened = {}, False, []
    Place.gate = threading.Event()
    Place.gate.set()
    return Place


def wait(happens):
    until = time.monotonic() + 30
    while not happens() and time.monotonic() < until:
        time.sleep(0.01)
    assert happens()


def test_nobody_waits_for_a_slow_place_and_only_the_newest_is_sent(shaky, run):
    shaky.gate.clear()
    with Backup("shaky://x", run) as copy:
        for epoch in range(50):
            (run / "checkpoints" / "last.pt").write_text(f"weights of epoch {epoch}")
            copy.send(run / "checkpoints" / "last.pt")
        assert len(shaky.opened) <= 1  # the first file is still on its way, and nobody waited
        shaky.gate.set()
    assert sum("last.pt" in path for path in shaky.opened) <= 2
    assert there("shaky://x")["checkpoints/last.pt"] == "weights of epoch 49"


def test_a_place_that_is_away_is_said_once_and_made_up_for_when_it_is_back(shaky, run, caplog):
    caplog.set_level("INFO")
    shaky.away = True
    with Backup("shaky://x", run) as copy:
        copy.send(run / "checkpoints" / "last.pt")
        wait(lambda: len(shaky.opened) > 4)
        copy.send(run / "checkpoints" / "epoch_0001.pt")
        assert not there("shaky://x")
        shaky.away = False
    assert caplog.text.count("cannot be written (OSError: the line is dead)") == 1
    assert "can be written again" in caplog.text
    assert {"checkpoints/last.pt", "checkpoints/epoch_0001.pt", "run.json"} <= set(there("shaky://x"))
    rows = [row for _, row in read_rows(run) if row["kind"] == "warning"]
    assert [row["title"] for row in rows] == ["Backup fails"]
    assert there("shaky://x")["metrics.jsonl"] == (run / "metrics.jsonl").read_text()


def test_the_end_waits_no_longer_than_it_may(shaky, run, caplog):
    shaky.away = True
    began = time.monotonic()
    with Backup("shaky://x", run, timeout=0.3) as copy:
        copy.send(run / "checkpoints" / "last.pt")
    assert time.monotonic() - began < 10
    assert "is not up to date" in caplog.text
    wait(lambda: not copy._thread.is_alive())


def test_a_run_that_is_interrupted_waits_only_for_a_moment(shaky, run):
    shaky.gate.clear()
    began = time.monotonic()
    with pytest.raises(SystemExit), Backup("shaky://x", run, timeout=1000, hurry=0.2) as copy:
        copy.send(run / "checkpoints" / "last.pt")
        raise SystemExit(75)
    assert time.monotonic() - began < 30
    shaky.gate.set()
    copy._thread.join(30)


def test_what_arrives_short_is_sent_again(shaky, run, monkeypatch):
    cut = iter([True])
    info = shaky.info

    def short(self, path, **options):
        found = info(self, path, **options)
        if "last.pt" in path and path.endswith(".partial") and next(cut, False):
            return {**found, "size": 3}
        return found

    monkeypatch.setattr(shaky, "info", short)
    found = sent("shaky://x", run)
    assert found["checkpoints/last.pt"] == "weights of epoch 1"
    assert not [name for name in found if "partial" in name]
    assert sum("last.pt" in path for path in shaky.opened) == 2


def test_checkpoints_that_the_run_let_go_of_go_there_too(url, run):
    sent(url, run)
    (run / "checkpoints" / "epoch_0001.pt").unlink()
    (run / "checkpoints" / "epoch_0002.pt").write_text("weights of epoch 2")
    found = sent(url, run, "checkpoints/epoch_0002.pt", "checkpoints/last.pt")
    assert {name for name in found if "checkpoints" in name} == {"checkpoints/last.pt", "checkpoints/epoch_0002.pt"}


def test_snapshots_where_a_file_that_is_read_cannot_be_replaced(url, run):
    with Backup(url, run) as copy:
        copy.snapshots = True
        copy.send(run / "checkpoints" / "last.pt")
    assert there(url)["checkpoints/last.pt"] == "weights of epoch 1"
    assert not (run / ".backup").exists()


def _send_forever(url, run):
    with Backup(url, run) as copy:
        while True:
            copy.send(run / "checkpoints" / "last.pt")
            time.sleep(0.001)


def test_a_kill_while_it_sends_leaves_no_half_file_under_a_final_name(run, tmp_path):
    location = tmp_path / "elsewhere"
    content = b"0123456789abcdef" * 2**20
    (run / "checkpoints" / "last.pt").write_bytes(content)
    final = location / "unet2d" / run.name / "checkpoints" / "last.pt"
    process = multiprocessing.get_context("spawn").Process(target=_send_forever, args=(str(location), run))
    process.start()
    wait(lambda: list(final.parent.glob(".last.pt.*.partial")) and final.is_file())
    while not list(final.parent.glob(".last.pt.*.partial")):
        pass
    process.kill()
    process.join(30)
    assert final.read_bytes() == content
    for path in final.parent.glob(".*.partial"):
        path.write_bytes(b"half")  # whatever there is of it
    assert fetch(str(location), "abc", tmp_path / "other" / "unet2d") is not None
    assert not list((tmp_path / "other").rglob("*.partial*"))
    sent(str(location), run)
    assert not list(location.rglob("*.partial"))


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("nope://x", ConfigError, "fsspec does not know the protocol nope://"),
        ("s3://bucket", ConfigError, "pip install s3fs"),
        ("ssh://host/x", ConfigError, "pip install paramiko"),
    ],
)
def test_a_place_that_cannot_be(url, error, message, tmp_path):
    if "s3" in url or "ssh" in url:
        try:
            fsspec.get_filesystem_class(url.partition(":")[0])
        except ImportError:
            pass
        else:
            pytest.skip("its package is installed here")
    with pytest.raises(error, match=message):
        Backup(url, tmp_path / "unet2d" / "one")


def test_a_place_that_cannot_be_written_or_is_silent(tmp_path, shaky):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="the place cannot be reached or written"):
        Backup(str(tmp_path / "file" / "x"), tmp_path / "unet2d" / "one").check()
    shaky.gate.clear()
    with pytest.raises(OutputError, match=r"no answer in 0\.1 s"):
        Backup("shaky://x", tmp_path / "unet2d" / "one", check_timeout=0.1).check()
    shaky.gate.set()


def test_a_copy_that_comes_back_short_leaves_nothing(url, run, tmp_path, monkeypatch):
    sent(url, run)
    location, _ = fsspec.core.url_to_fs(url)
    monkeypatch.setattr(
        type(location), "get_file", lambda self, path, target, **_: Path(target).write_text("x", encoding="utf-8")
    )
    with pytest.raises(OutputError, match="cannot be copied from the backup"):
        fetch(url, "abc", tmp_path / "other" / "unet2d")
    assert list((tmp_path / "other" / "unet2d").iterdir()) == []


def test_checkpoints_that_lie_elsewhere_by_a_link_are_sent(url, run, tmp_path):
    (run / "checkpoints").rename(tmp_path / "scratch")
    (run / "checkpoints").symlink_to(tmp_path / "scratch", target_is_directory=True)
    assert sent(url, run)["checkpoints/last.pt"] == "weights of epoch 1"


def test_what_lies_outside_of_the_run_is_left_out_and_said_once(url, run, tmp_path, caplog):
    for name in ("last.pt", "best.pt"):
        (tmp_path / name).write_text("outside")
    found = sent(url, run, tmp_path / "last.pt", tmp_path / "best.pt", "checkpoints/epoch_0001.pt")
    assert "checkpoints/epoch_0001.pt" in found
    assert not {"last.pt", "best.pt", "checkpoints/last.pt"} & set(found)
    assert caplog.text.count("lies outside of") == 1


def test_a_file_that_cannot_be_sent_holds_up_no_other(shaky, run, monkeypatch, caplog):
    caplog.set_level("INFO")
    open_file = shaky._open

    def refuse(self, path, mode="rb", **options):
        if "train.json" in path and mode == "wb":
            raise OSError("this name is not allowed")
        return open_file(self, path, mode, **options)

    monkeypatch.setattr(shaky, "_open", refuse)
    with Backup("shaky://x", run, timeout=0.2) as copy:
        copy.send(run / "checkpoints" / "last.pt")
        wait(lambda: "checkpoints/last.pt" in there("shaky://x"))
        (run / "checkpoints" / "last.pt").write_text("weights of epoch 2")
        copy.send(run / "checkpoints" / "last.pt")
        wait(lambda: there("shaky://x")["checkpoints/last.pt"] == "weights of epoch 2")
    assert caplog.text.count("this name is not allowed") == 1
    assert "can be written again" not in caplog.text
    assert "configs/train.json" not in there("shaky://x")


@pytest.mark.parametrize("broken", [False, True])
def test_a_place_that_moves_onto_no_file_gets_the_newer_one_and_never_loses_the_older(shaky, run, monkeypatch, broken):
    assert sent("shaky://x", run)["checkpoints/last.pt"] == "weights of epoch 1"
    move = shaky.mv

    def strict(self, source, target, **options):
        if self.exists(target) or (broken and target.endswith("/last.pt") and ".before" not in source):
            raise OSError("File exists")
        move(self, source, target, **options)

    monkeypatch.setattr(shaky, "mv", strict)
    (run / "checkpoints" / "last.pt").write_text("weights of epoch 2")
    with Backup("shaky://x", run, timeout=0.3) as copy:
        copy.send(run / "checkpoints" / "last.pt")
    copy._thread.join(30)
    found = there("shaky://x")
    assert found["checkpoints/last.pt"] == f"weights of epoch {1 if broken else 2}"
    assert not [name for name in found if "partial" in name]
