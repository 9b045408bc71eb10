"""Training from a slice store draws what training from the folder itself draws."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from medseg.bundle import Bundle, run_bundle
from medseg.data import PrepareConfig, prepare
from medseg.errors import ConfigError, MedsegError

pytestmark = pytest.mark.slow

SPACING = [9.0, 9.0, -1]
STRUCTURES = ("spleen", "kidney_right", "kidney_left", "liver")


@pytest.fixture(scope="module")
def prepared(phantom, tmp_path_factory):
    out = tmp_path_factory.mktemp("store") / "set"
    prepare(phantom, out, PrepareConfig(STRUCTURES, spacing=tuple(SPACING), store=True))
    return out


@pytest.fixture
def batches(tiny, tmp_path):
    """The batches of two epochs of unet2d on a data set, patches as large as to show all of what is drawn."""

    def draw(data, **overrides):
        settings = {**tiny, "spacing": SPACING, "patch_size": [32, 28], "output_dir": str(tmp_path), "batch_size": 3}
        parser = Bundle.open("unet2d").resolve("train", {**settings, "dataset_dir": str(data), **overrides})
        loader = parser.get_parsed_content("train#dataloader")
        found = []
        for epoch in (1, 2):
            loader.sampler.set_position(epoch)
            found += list(loader)
        return found

    return draw


@pytest.mark.parametrize("more", [{}, {"context": 2}, {"num_workers": 2}], ids=["plain", "context", "workers"])
def test_a_store_gives_the_slices_that_the_folder_gives(phantom, prepared, batches, more):
    from_folder, from_store = batches(phantom, **more), batches(prepared, **more)
    assert len(from_folder) == len(from_store) == 6
    seen = set()
    for one, other in zip(from_folder, from_store, strict=True):
        assert one["case"] == other["case"]
        assert torch.equal(one["label"], other["label"])
        seen |= set(torch.unique(one["label"]).tolist())
        assert one["image"].shape == other["image"].shape
        # Half a HU of rounding, through the steepest part of the window, and float16 in the cache of the folder.
        assert (one["image"] - other["image"]).abs().max() < 0.5 * 0.0012 + 0.001
    assert seen == {0, 1, 2, 3, 4}


def test_spawned_workers_draw_the_same(prepared, batches):
    """As on Windows and macOS, where there is no fork."""
    spawned = {"num_workers": 2, "train#dataloader#multiprocessing_context": "spawn"}
    for one, other in zip(batches(prepared), batches(prepared, **spawned), strict=True):
        assert torch.equal(one["label"], other["label"])
        assert torch.equal(one["image"], other["image"])


def test_the_store_of_a_prepared_set_gives_what_its_files_give(prepared, batches):
    for one, other in zip(batches(prepared, **{"data#use_store": False}), batches(prepared), strict=True):
        assert torch.equal(one["label"], other["label"])
        assert (one["image"] - other["image"]).abs().max() < 0.001


def test_another_numbering_is_drawn_from_the_same_store(prepared, phantom, batches):
    fewer = {"structures": ["kidney_left", "liver"]}
    for one, other in zip(batches(phantom, **fewer), batches(prepared, **fewer), strict=True):
        assert np.mean((one["label"] != other["label"]).numpy()) < 0.01  # neighbors that were merged out


def test_a_bundle_trains_from_a_store(prepared, tiny, tmp_path):
    overrides = {**tiny, "spacing": SPACING, "dataset_dir": str(prepared), "output_dir": str(tmp_path)}
    run_bundle(Bundle.open("unet2d"), "training", "train", (), overrides)
    (record,) = tmp_path.glob("unet2d/*/run.json")
    assert json.loads(record.read_text())["state"] == "finished"


def test_a_store_at_another_spacing_is_refused(prepared, batches):
    with pytest.raises((RuntimeError, MedsegError)) as caught:
        batches(prepared, spacing=[1.5, 1.5, -1])
    cause = caught.value
    while cause.__cause__ is not None:
        cause = cause.__cause__
    assert isinstance(cause, ConfigError)
    assert "Prepare with --spacing 1.5 1.5 -1, or train with data#use_store=false" in str(cause)


def test_a_store_that_is_asked_for_must_be_there(phantom, batches):
    with pytest.raises((RuntimeError, MedsegError)) as caught:
        batches(phantom, **{"data#use_store": True})
    assert "has no slice store" in f"{caught.value.__cause__} {caught.value}"
