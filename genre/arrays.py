"""Types of NumPy arrays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Rows = npt.NDArray[np.uint32]  # of clips: half of the memory where there are 100 million
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
