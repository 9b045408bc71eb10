"""A checkpoint is whole, or it says that it is not."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from medseg.errors import OutputError, WeightsError
from medseg.training import checkpoint_files as files

pytestmark = pytest.mark.slow

CONTENT = {"weights": torch.arange(40.0), "epoch": 3, "names": ["liver", "spleen"]}


def equal(content):
    return torch.equal(content["weights"], CONTENT["weights"]) and content["names"] == CONTENT["names"]


def test_every_bit_that_matters_is_looked_at(tmp_path):
    path = tmp_path / "last.pt"
    files.write(path, CONTENT)
    good = path.read_bytes()
    refused = 0
    for location in range(0, len(good), 3):
        wrong = bytearray(good)
        wrong[location] ^= 0x41
        path.write_bytes(wrong)
        try:
            assert equal(files.read(path)), f"byte {location} changed what was read"
        except WeightsError:
            refused += 1
    assert refused > len(good) / 6  # the rest is padding


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_file_that_was_cut_is_refused(tmp_path, share):
    path = tmp_path / "last.pt"
    files.write(path, CONTENT)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(WeightsError, match="the checkpoint is damaged"):
        files.read(path)


def test_the_one_before_keeps_its_content_and_the_new_one_is_there(tmp_path):
    last, previous = tmp_path / files.LAST, tmp_path / files.PREVIOUS
    for number in range(3):
        files.write(last, {"number": number}, previous)
    assert (files.read(last)["number"], files.read(previous)["number"]) == (2, 1)


def test_a_place_without_second_names_keeps_the_one_before_too(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    test_the_one_before_keeps_its_content_and_the_new_one_is_there(tmp_path)


def test_the_newest_whole_one_is_read(tmp_path, caplog):
    assert files.read_newest(tmp_path) is None
    for name, number in (("last", 4), ("previous", 3), ("epoch_0002", 2), ("epoch_0001", 1)):
        files.write(tmp_path / f"{name}.pt", {"number": number})
    for name, number in (("last", 4), ("previous", 3), ("epoch_0002", 2), ("epoch_0001", 1)):
        path, content = files.read_newest(tmp_path)
        assert (path.stem, content["number"]) == (name, number)
        (tmp_path / f"{name}.pt").write_bytes(b"no checkpoint")
    with pytest.raises(WeightsError, match=r"last\.pt"):
        files.read_newest(tmp_path)
    assert "is damaged" in caplog.text


def test_a_few_stay(tmp_path):
    for epoch in (5, 10, 15, 20):
        (tmp_path / f"epoch_{epoch:04d}.pt").touch()
    files.prune(tmp_path, None)
    assert len(list(tmp_path.iterdir())) == 4
    files.prune(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch_0015.pt", "epoch_0020.pt"]


def test_names_with_scores_are_in_the_order_of_their_epochs(tmp_path):
    scores = {"loss": 0.41234, "mean_dice": 0.8315, "mean_f1": 1.0}
    assert files.epoch_name(5) == files.epoch_name(5, {}) == "epoch_0005.pt"
    assert files.epoch_name(12, scores) == "epoch_0012_loss0.412_dice0.832_f11.000.pt"
    for epoch, said in ((5, {"loss": 0.9}), (10, {"loss": 0.1}), (15, {"loss": 0.5}), (20, None), (25, {"loss": 0.02})):
        files.write(tmp_path / files.epoch_name(epoch, said), {"number": epoch})
    for newest in (25, 20, 15):
        path, content = files.read_newest(tmp_path)
        assert content["number"] == newest
        path.write_bytes(b"no checkpoint")
    files.prune(tmp_path, 4)
    assert sorted(path.name[:10] for path in tmp_path.iterdir()) == [f"epoch_00{n}" for n in (10, 15, 20, 25)]
    assert files.read_newest(tmp_path)[1]["number"] == 10


def test_a_state_of_numpy_becomes_one_that_can_be_read_back(tmp_path):
    state = {"best": np.float64(0.5), "count": np.int64(3), "edges": np.arange(3), 4: (None, True)}
    files.write(tmp_path / "last.pt", files.plain(state, "history"))
    read = files.read(tmp_path / "last.pt")
    assert (read["best"], read["count"], read["edges"].tolist(), read[4]) == (0.5, 3, [0, 1, 2], [None, True])


def test_a_state_that_could_not_be_read_back_is_refused_when_it_is_saved():
    with pytest.raises(TypeError, match="history: a state must hold numbers"):
        files.plain({"folder": object()}, "history")


def test_weights_of_another_network_are_named(tmp_path):
    theirs = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1)).state_dict()
    ours = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Identity(), torch.nn.Linear(4, 1))
    with pytest.raises(WeightsError, match=r"'0.weight' is \(3, 2\) there and \(4, 2\) here.* and 3 more"):
        files.require_same(tmp_path / "last.pt", ours, theirs)


FULL = """
import resource, sys
import torch
from pathlib import Path
from medseg.errors import OutputError
from medseg.training import checkpoint_files as files
path = Path(sys.argv[1])
files.write(path, {"number": 1})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    files.write(path, {"weights": torch.zeros(100_000)}, path.with_name("previous.pt"))
except OutputError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of files")
def test_where_the_system_refuses_to_write_the_one_before_stays(tmp_path):
    path = tmp_path / "last.pt"
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True)
    assert "last.pt: it cannot be written: " in done.stdout
    assert "File too large" in done.stdout
    assert files.read(path) == {"number": 1}
    assert [one.name for one in tmp_path.iterdir()] == ["last.pt"]


def test_a_disk_that_is_full_says_so(tmp_path, monkeypatch):
    def full(content, file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OutputError, match="No space left"):
        files.write(tmp_path / "last.pt", CONTENT)
    assert not list(tmp_path.iterdir())
