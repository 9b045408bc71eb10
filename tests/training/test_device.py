import os
import random
import subprocess
import sys

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


SHARING = """
import os, threading
{first}
import medseg.training
medseg.training.prepare("cpu", 0)
names = [thread.name for thread in threading.enumerate()]
print(os.environ.get("GOMP_SPINCOUNT"), "medseg-share-cores" in names)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "variables", "printed"),
    [
        ("", {}, "2000 False"),
        ("import torch; torch.set_num_threads(2)", {}, "None True"),
        ("import torch; torch.set_num_threads(1)", {}, "None False"),
        ("import torch; torch.set_num_threads(2)", {"OMP_WAIT_POLICY": "active"}, "None False"),
        ("import torch; torch.set_num_threads(2)", {"GOMP_SPINCOUNT": "7"}, "7 False"),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="libgomp is of Linux")
def test_threads_wait_shortly_whichever_is_imported_first(first, variables, printed):
    environment = {name: value for name, value in os.environ.items() if name not in module._WAIT_VARIABLES}
    command = [sys.executable, "-c", SHARING.format(first=first)]
    done = subprocess.run(command, env={**environment, **variables}, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == printed
