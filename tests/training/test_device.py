import random

import numpy as np
import pytest
import torch

from medseg.errors import DeviceError
from medseg.training import default_workers, prepare, select_device
from medseg.training import device as module


def test_auto_takes_what_there_is():
    assert select_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_where_there_is_none_says_what_to_do():
    with pytest.raises(DeviceError, match=r"'cuda:0'.*torch can use 0 CUDA devices.*device=cpu"):
        select_device("cuda:0")


def test_a_device_of_no_name_is_refused():
    with pytest.raises(DeviceError, match="torch knows no such device"):
        select_device("gpu")


def test_no_workers_where_processes_are_spawned(monkeypatch):
    for platform in ("win32", "darwin"):
        monkeypatch.setattr(module.sys, "platform", platform)
        assert default_workers() == 0


def test_workers_leave_a_core_and_have_an_end(monkeypatch):
    monkeypatch.setattr(module.sys, "platform", "linux")
    for cores, workers in ((1, 0), (2, 0), (4, 3), (64, 8)):
        monkeypatch.setattr(module.os, "sched_getaffinity", lambda _, n=cores: set(range(n)), raising=False)
        assert default_workers() == workers


def test_prepare_seeds_everything():
    drawn = []
    for _ in range(2):
        prepare("cpu", seed=7)
        drawn.append((random.random(), float(np.random.rand()), float(torch.rand(1))))
    assert drawn[0] == drawn[1]
    prepare("cpu", seed=0, benchmark=False)
    assert torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.benchmark
