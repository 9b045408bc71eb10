"""What each compiled loop does is held against torch in test_voxels.py; here, the exponential and the door."""

import subprocess
import sys

import numpy as np

from medseg.losses import compiled


def test_the_exponential_is_that_of_numpy():
    x = np.concatenate([-np.linspace(0, 87, 20001), -np.geomspace(1e-8, 1, 2001)]).astype(np.float32)
    found = np.array([compiled._exp(one) for one in x])
    assert np.abs(found / np.exp(x.astype(np.float64)) - 1).max() < 2e-7


def test_the_exponential_at_the_ends():
    assert compiled._exp(np.float32(0)) == 1
    assert 0 < compiled._exp(np.float32(-np.inf)) < 2e-38
    assert np.isnan(compiled._exp(np.float32(np.nan)))


def test_without_numba_everything_goes_on_in_torch():
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "import torch; from medseg.losses import DiceCELoss, voxels\n"
        "assert not voxels.compiled(torch.zeros(1))\n"
        "print(round(float(DiceCELoss()(torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4, dtype=torch.uint8))), 4))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "1.3598", done.stderr
