"""Errors of prediction as they are printed."""

import numpy as np
import pytest

import medseg
from medseg.bundle import Bundle, Prediction, Predictor
from medseg.bundle.volume_writer import existing_mask
from medseg.errors import MedsegError
from medseg.grid import Grid
from medseg.labels import LabelMap
from medseg.runs.find import find_bundle
from medseg.search_path import find_overlay

GRID = Grid((2, 2, 2), np.eye(4))


def message(call, *arguments, **options):
    with pytest.raises(MedsegError) as caught:
        call(*arguments, **options)
    return str(caught.value)


def test_bundles_and_overlays(repository, tmp_path):
    assert message(find_bundle, "unet2") == (
        "bundle 'unet2': there is no bundle or run of that name. Did you mean 'unet2d'?"
    )
    assert message(find_overlay, "quik", repository / "bundles" / "unet2d").startswith(
        "overlay 'quik': there is no JSON file or overlay of that name. "
    )
    assert message(Predictor, Bundle.open("unet2d")) == (
        f"{repository / 'bundles' / 'unet2d' / 'models' / 'model.pt'}: the trained weights are missing. "
        "Train the bundle first, or give a run's folder."
    )


def test_images_in_memory(trained):
    predictor = medseg.load(trained, device="cpu")
    assert message(medseg.segment, np.zeros((4, 4, 4)), predictor) == (
        "image: an array does not say where its voxels lie, nor which side is left. "
        "Pass affine=, the 4x4 matrix from voxel index to mm in RAS, as nibabel has it."
    )
    assert message(medseg.segment, np.zeros((4, 4)), predictor) == (
        "image: this is a 2D slice, and the predictor takes volumes (shape (4, 4)). "
        "Pass an array (I, J, K) with affine=, or the path of a volume; load a network of 2D slices with slices=True."
    )
    assert message(medseg.segment, np.full((4, 4, 4), np.inf), predictor, affine=np.eye(4)) == (
        "image: 64 voxels are NaN or infinite. Replace them, for example by air (-1024)."
    )


def test_predictions(save):
    labels = LabelMap(["liver"])
    assert message(Prediction, np.zeros((2, 2, 3), np.uint8), GRID, labels, "ct.nii.gz") == (
        "prediction for ct.nii.gz: the label map's shape (2, 2, 3) is not that of the grid, (2, 2, 2)."
    )
    prediction = Prediction(np.zeros((2, 2, 2), np.uint8), GRID, labels, save("a.nii.gz", np.zeros((2, 2, 2))))
    assert message(prediction.preview) == (
        f"prediction for {prediction.source}: the voxels of the scan were not kept, so there are no HU to report. "
        "Predict it with medseg.segment, or Predictor.load(scan, keep_image=True)."
    )
    mask = prediction.save(prediction.source.with_name("mask.nii.gz"))
    assert message(existing_mask, mask, prediction.source, LabelMap(["spleen"]), None) == (
        f"{mask}: a mask of other structures is there already. "
        "Choose another folder with -o, or replace it with --overwrite."
    )
