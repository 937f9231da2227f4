"""The benchmarks run from a checkout, and what they compare is equal; how fast it was is nobody's business here."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "bench"
RUN_TIMEOUT_S = 120


def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a benchmark to its end, in a folder that is not the checkout's."""
    command = [sys.executable, str(BENCH / f"{name}.py"), *arguments]
    return subprocess.run(
        command,
        cwd=BENCH.anchor,
        env={"COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_TIMEOUT_S,
    )
