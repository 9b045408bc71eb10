import random

import numpy as np
import pytest
import torch

from medseg.training.seeding import rng_kept, rng_state, set_rng_state


def draw():
    # three of each, so that numpy's and Python's second gaussian is one they kept
    return [
        [random.random(), random.gauss(0, 1)],
        [float(np.random.rand()), float(np.random.randn())],
        torch.rand(2).tolist(),
    ]


def test_all_generators_go_on_where_they_were(tmp_path):
    draw()
    torch.save(rng_state(), tmp_path / "rng.pt")
    wanted = [draw(), draw()]
    draw()
    set_rng_state(torch.load(tmp_path / "rng.pt", weights_only=True))
    assert [draw(), draw()] == wanted


def test_what_is_drawn_inside_is_not_missing_outside():
    state = rng_state()
    wanted = draw()
    set_rng_state(state)
    with pytest.raises(ZeroDivisionError), rng_kept():
        draw()
        _ = 1 / 0
    assert draw() == wanted
