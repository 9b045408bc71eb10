import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import ScaleIntensityRange

from medseg.errors import ConfigError
from medseg.transforms import WindowHUd

POINTS = [[-1000, 0.0], [-200, 0.2], [300, 0.8], [1200, 1.0]]


def test_values_at_and_between_the_knees():
    hu = torch.tensor([[-2000.0, -1000, -600, -200, 50, 300, 750, 1200, 3000]])
    found = WindowHUd("image", POINTS)({"image": hu})["image"]
    torch.testing.assert_close(found, torch.tensor([[0, 0, 0.1, 0.2, 0.5, 0.8, 0.9, 1, 1]]))


@given(st.integers(-1000, 0), st.integers(1, 2000))
def test_two_points_are_monais_window(low, width):
    hu = torch.linspace(-2000, 3000, 101)[None]
    wanted = ScaleIntensityRange(low, low + width, 0, 1, clip=True)(hu)
    found = WindowHUd("image", [[low, 0], [low + width, 1]])({"image": hu})["image"]
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def test_geometry_and_trace_are_kept():
    volume = MetaTensor(torch.zeros(1, 2, 2, 2), affine=2 * torch.eye(4), applied_operations=[{"class": "Flip"}])
    found = WindowHUd("image", POINTS)({"image": volume})["image"]
    assert torch.equal(found.affine, volume.affine)
    assert found.applied_operations == volume.applied_operations
    assert found.dtype == torch.float32


@pytest.mark.parametrize("points", [[[0, 0]], [[0, 0], [0, 1]], [[0, 1], [1, 0]], [0, 1], [[0, 0, 0], [1, 1, 1]]])
def test_points_that_fold_hu_over_are_refused(points):
    with pytest.raises(ConfigError, match="WindowHUd"):
        WindowHUd("image", points)
