"""Makes `daemon_stage`, and `bench.staleness`, importable for the tests beside this file."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[3])]
