"""A batch for the tests of methods."""

import numpy as np
import pytest
import torch

from ltbench.methods import Batch


@pytest.fixture
def batch() -> Batch:
    """Six images of three classes."""
    images = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return Batch((images,), torch.tensor([0, 1, 2, 0, 0, 1]), np.arange(6))
