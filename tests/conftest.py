"""What the tests share: hypothesis without a clock, and a small GPT."""

import matplotlib
import pytest
import torch
from hypothesis import settings

from gptlib import GPT, GPTConfig

matplotlib.use("Agg")                                   # no window, and no word of it to the kernels of notebooks
settings.register_profile("course", deadline=None, derandomize=True, max_examples=50)      # the same examples every time
settings.load_profile("course")


@pytest.fixture
def tiny():
    """A function that makes a small GPT, always of the same weights, and large ones, so that they matter."""
    def make(**how):
        torch.manual_seed(0)
        model = GPT(GPTConfig(**{"vocab_size": 11, "block_size": 8, "n_layer": 2, "n_head": 2, "n_embd": 12} | how))
        for weight in model.parameters():
            torch.nn.init.normal_(weight, std=0.5)
        return model
    return make
