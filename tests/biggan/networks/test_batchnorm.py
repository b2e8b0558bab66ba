"""BatchNorm in eval mode, where its statistics are constants."""

from __future__ import annotations

import pytest
import torch

from biggan.networks.batchnorm import AffineBatchNorm, ConditionalBatchNorm


@pytest.mark.parametrize("kind", ["affine", "conditional"])
def test_in_eval_mode_one_pass_does_what_statistics_and_modulation_do_one_after_the_other(kind: str) -> None:
    """Against the definition in float64."""
    random = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random)

    x, condition = draw(5, 4, 3, 3), draw(5, 6)
    gain, bias = torch.nn.Linear(6, 4), torch.nn.Linear(6, 4)
    if kind == "affine":
        layer = AffineBatchNorm(4, eps=1e-4, momentum=0.1)
    else:
        layer = ConditionalBatchNorm(4, gain, bias, eps=1e-4, momentum=0.1)
    with torch.no_grad():
        for tensor in layer.state_dict().values():
            tensor.copy_(draw(*tensor.shape))
        layer.running_var.abs_()
        found = layer.eval()(x, condition)
        mean, deviation = layer.running_mean.double(), (layer.running_var.double() + 1e-4).sqrt()
        normal = (x.double() - mean[:, None, None]) / deviation[:, None, None]
        if kind == "affine":
            scale, shift = layer.weight.double()[:, None, None], layer.bias.double()[:, None, None]
        else:
            scale = (1 + gain(condition)).double()[:, :, None, None]
            shift = bias(condition).double()[:, :, None, None]
        torch.testing.assert_close(found.double(), scale * normal + shift, rtol=1e-5, atol=1e-4)
