import numpy as np
import pytest
import torch

from medseg.errors import ConfigError
from medseg.transforms import ScaleWindowd

VOLUME = torch.tensor([-1000.0, -160.0, 40.0, 240.0, 900.0]).reshape(1, 5, 1, 1)


def test_a_window_becomes_0_to_1_and_what_is_outside_is_cut():
    found = ScaleWindowd("image", [-160, 240])({"image": VOLUME, "case": "a"})
    assert found["image"].flatten().tolist() == pytest.approx([0, 0, 0.5, 1, 1])
    assert found["case"] == "a"


def test_a_scan_becomes_0_to_1_by_its_own_ends():
    values = np.random.default_rng(0).integers(-700, 3000, (1, 4, 5, 3))
    found = ScaleWindowd("image", "scan")({"image": torch.tensor(values, dtype=torch.int16)})["image"]
    assert found.dtype == torch.float32
    wanted = (values - values.min()) / (values.max() - values.min())
    assert np.allclose(np.asarray(found), wanted, atol=1e-6)


def test_while_nobody_has_said_which_no_volume_passes():
    scale = ScaleWindowd("image", None)
    with pytest.raises(
        ConfigError, match=r"window: it is not known which values were black and white.*window=\[-160,240\]"
    ):
        scale({"image": VOLUME})


@pytest.mark.parametrize("window", ["slice", [0], [1, 2, 3], [5, 5], [240, -160]])
def test_other_windows_are_refused(window):
    with pytest.raises(ConfigError, match=r"window: it must be \[low, high\], scan or null"):
        ScaleWindowd("image", window)
