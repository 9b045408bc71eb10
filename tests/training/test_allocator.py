import os
import platform
import subprocess
import sys

import pytest

from medseg.training import device

pytestmark = pytest.mark.slow

CODE = """
import resource
from medseg.training.device import keep_freed_memory
import numpy as np
done = {call}
def faults():
    for _ in range(20):
        np.ones(2**23)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(2**23)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(done, faults())
"""
glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")


def ask(call, **environment):
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(call=call)],
        capture_output=True, text=True, check=True, env={**os.environ, **environment},
    )  # fmt: skip
    said, faults = done.stdout.split()
    return said, int(faults)


@glibc
def test_big_buffers_are_asked_of_the_system_once():
    assert ask("keep_freed_memory()") == ("True", pytest.approx(0, abs=50))
    said, faults = ask("False")
    assert said == "False"
    assert faults > 500  # pages that the system had to clear


@glibc
def test_who_has_set_the_allocator_keeps_what_was_set():
    assert ask("keep_freed_memory()", MALLOC_TOP_PAD_="1024")[0] == "False"


def test_without_glibc_nothing_is_done(monkeypatch):
    monkeypatch.setattr(device.platform, "libc_ver", lambda: ("", ""))
    assert not device.keep_freed_memory()
