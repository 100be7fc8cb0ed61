"""The benchmarks' package is no part of the installation."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
