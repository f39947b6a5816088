"""The annotations of tensors are checked at run time in all tests (conftest.py): a wrong shape is caught where it enters."""

from __future__ import annotations

import jaxtyping
import pytest
import torch

from tunewright.models.language.kernels import rotate
from tunewright.models.recommendation.embedding_table import Table
from tunewright.models.vision.resnet import BasicBlock


def test_a_wrong_number_of_dimensions_is_caught() -> None:
    block = BasicBlock(3, 8, 1, project=False)
    assert block(torch.zeros(2, 3, 4, 4)).shape == (2, 8, 4, 4)
    # torch's convolutions take one image without a batch too.
    with pytest.raises(jaxtyping.TypeCheckError, match="batch channels height width"):
        block(torch.zeros(3, 4, 4))


def test_sizes_that_disagree_are_caught() -> None:
    x, angles = torch.zeros(2, 5, 3, 4), torch.zeros(2, 5, 1, 4)
    assert rotate(x, angles, angles).shape == x.shape
    # torch would broadcast a single angle over all dimensions.
    with pytest.raises(jaxtyping.TypeCheckError, match="head_size"):
        rotate(x, angles[..., :1], angles[..., :1])


def test_a_wrong_type_of_numbers_is_caught() -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match="Int"):
        Table(3, 2)(torch.tensor([0.0, 1.0]))
