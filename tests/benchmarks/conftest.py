"""The benchmarks' package is no part of the installation, and TorchServe's stand-in is that of the service's tests."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "serving")]
