"""The types of products and of gradients, whatever the caller has switched on."""

from __future__ import annotations

import torch

from codec.encoding.arithmetic import as_written


def test_as_written_keeps_out_what_a_caller_has_switched_on():
    weight = torch.ones(2, 2, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16), as_written():
        product = weight @ weight
        assert product.dtype == torch.float32
        assert not product.requires_grad
    with torch.inference_mode(), as_written():
        assert not torch.ones(1).is_inference()
    assert (weight @ weight).requires_grad
