"""What each compiled loop does is held against torch in test_kernels; here, that the door to it works."""

import subprocess
import sys


def test_without_numba_everything_goes_on_in_torch():
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "import torch; from medseg.inference import kernels\n"
        "assert not kernels.compiled(torch.zeros(1))\n"
        "print(kernels.best_of(torch.tensor([[[0.0, 2.0, 1.0]]])).tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[[1]]", done.stderr
