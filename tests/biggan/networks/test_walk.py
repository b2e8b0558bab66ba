"""The fast walks give what `nn.Module`'s own give, in the same order."""

from __future__ import annotations

import pytest
from torch import nn

from biggan.cli.options import parse
from biggan.networks import build_networks
from biggan.networks.walk import buffers_of, modules_of, parameters_of


def same(network: nn.Module) -> None:
    assert [id(one) for one in modules_of(network)] == [id(one) for one in network.modules()]
    assert [id(one) for one in parameters_of(network)] == [id(one) for one in network.parameters()]
    assert [id(one) for one in buffers_of(network)] == [id(one) for one in network.buffers()]


@pytest.mark.parametrize("line", [[], ["imagenet128-deep", "--model.ch=8"], ["--model.norm_D=conditional"]])
def test_networks(line: list[str]) -> None:
    for network in build_networks(parse(line).config()):
        same(network)


def test_what_occurs_twice_and_what_is_missing() -> None:
    shared = nn.BatchNorm2d(2)
    net = nn.ModuleDict({"a": nn.Sequential(nn.Linear(2, 2, bias=False), shared), "b": shared, "c": nn.Linear(2, 2)})
    net["c"].weight = net["a"][0].weight
    net["c"].register_module("none", None)
    net["c"].register_buffer("empty", None)
    same(net)
