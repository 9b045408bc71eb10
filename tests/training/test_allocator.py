"""In processes of their own: the setting is for good."""

import subprocess
import sys

import pytest

CODE = """
import ctypes, resource, torch
from medseg.training.allocator import keep_freed_memory
set_to = keep_freed_memory() if {kept} else None
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    torch.ones(20_000_000)
before = faults()
for _ in range(5):
    torch.ones(20_000_000)
print(set_to, faults() - before)
"""


def run(kept, **environment):
    code = CODE.format(kept=kept)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    set_to, faults = done.stdout.split()
    return set_to, int(faults)


@pytest.mark.skipif(sys.platform != "linux", reason="sets glibc, which only Linux has")
def test_freed_memory_is_used_again_instead_of_being_got_page_by_page():
    set_to, kept = run(True)
    if set_to == "False":
        pytest.skip("this Linux has another C library than glibc")
    _, given_back = run(False)
    assert given_back > 5 * 80e6 / 2**21 / 2  # pages of up to 2 MB, for 5 times 80 MB
    assert kept < given_back / 10


@pytest.mark.skipif(sys.platform != "linux", reason="sets glibc, which only Linux has")
def test_who_sets_the_allocator_is_left_alone():
    assert run(True, MALLOC_TRIM_THRESHOLD_="1000000")[0] == "False"
    assert run(True, GLIBC_TUNABLES="glibc.malloc.mmap_max=10")[0] == "False"
