"""A thread that waits while another computes has no team of PyTorch's threads."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("torch")

_CODE = """
import os
import torch
from cornu.engines.torch.team import _pause, leave_team

def threads():
    return len(os.listdir("/proc/self/task"))

alone = threads()
x = torch.ones(1 << 20)
expected = x.exp()
team = threads()
leave_team()
print(_pause() is not None, alone, team, threads(), bool((x.exp() == expected).all()), threads())
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts threads as Linux shows them")
def test_a_team_ends_and_comes_back():
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", _CODE], env=environment, capture_output=True, text=True, check=True)
    known, alone, team, left, same, again = done.stdout.split()
    assert same == "True"
    if known == "False":
        pytest.skip("this PyTorch does not come with GNU's OpenMP")
    assert int(team) == int(alone) + 1
    assert (left, again) == (alone, team)
