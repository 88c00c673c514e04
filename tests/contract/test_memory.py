"""Training never writes outside its memory; glibc's checking allocator would kill the process."""

from __future__ import annotations

import ctypes.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

CHECKER = ctypes.util.find_library("c_malloc_debug")
TESTS = Path(__file__).resolve().parents[1]
PLAIN = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}  # a processor without AVX-512 and bf16

pytestmark = pytest.mark.skipif(CHECKER is None, reason="needs glibc's checking allocator, libc_malloc_debug")

# the gradient of the input of a 1 x 1 convolution with stride 2 and fewer channels than a vector
FAULT = """
import sys, torch
torch.set_num_threads(1)
layout = getattr(torch, sys.argv[1])
convolution = torch.nn.Conv2d(4, 8, kernel_size=1, stride=2).to(memory_format=layout)
for _ in range(20):
    x = torch.randn(8, 4, 16, 40).to(memory_format=layout).requires_grad_()
    convolution(x).sum().backward()
"""


def checked(*arguments: str, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run Python under the checking allocator, which kills a process that wrote outside its memory."""
    checking = {"LD_PRELOAD": str(CHECKER), "MALLOC_CHECK_": "3", "PYTHONPATH": f"{TESTS.parent}:{TESTS}"}
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        cwd=TESTS.parent,
        env=os.environ | checking | variables,
        check=False,
    )


def test_torch_still_has_the_fault_that_the_layout_rule_avoids() -> None:
    done = checked("-c", FAULT, "channels_last", variables=PLAIN)
    died = done.returncode in {-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS}
    assert died, f"torch no longer writes outside its memory here: remove genre/model/layout.py's rule ({done.stderr})"


def test_the_fault_is_not_in_the_contiguous_layout() -> None:
    done = checked("-c", FAULT, "contiguous_format", variables=PLAIN)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("variables", [PLAIN, {}], ids=["plain", "full"])
def test_training_of_every_architecture_stays_within_its_memory(variables: dict[str, str]) -> None:
    done = checked(str(TESTS / "train_small.py"), variables=variables)
    lines = done.stdout.splitlines() or [""]
    assert done.returncode == 0, f"exit {done.returncode} after: {lines[-1]}\n{done.stderr}"
    assert lines[-1] == "done"
