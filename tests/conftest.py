"""Settings that all tests share, and a fixture that builds a small GPT."""

from dataclasses import fields

import matplotlib
import pytest
import torch
from hypothesis import settings

from gptlib.config import GPTConfig
from gptlib.variants.build import make_model
from gptlib.variants.config import VariantConfig

# Agg needs no display. The environment variable MPLBACKEND would change notebooks too.
matplotlib.use("Agg")
# derandomize: hypothesis tries the same examples in every run. deadline=None: a test may be slow.
settings.register_profile("course", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("course")

SMALL = {"vocab_size": 11, "block_size": 8, "n_layer": 2, "n_head": 2, "n_embd": 12}


@pytest.fixture
def tiny():
    """Return a function that builds a small GPT with fixed, large weights.

    The options are fields of GPTConfig. With a field of VariantConfig, such as `attention`, the
    model is a variant.
    """
    def build(**options):
        core = {field.name for field in fields(GPTConfig)}
        config = GPTConfig if options.keys() <= core else VariantConfig
        torch.manual_seed(0)
        model = make_model(config(**SMALL | options))
        for weight in model.parameters():
            torch.nn.init.normal_(weight, std=0.5)
        return model
    return build
