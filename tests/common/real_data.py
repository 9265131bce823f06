"""Where real images and published splits lie, for tests that skip without them."""

import os
from pathlib import Path

DATA = Path(os.environ.get("LTBENCH_TEST_DATA") or Path(__file__).parents[3] / "shared" / "data")
