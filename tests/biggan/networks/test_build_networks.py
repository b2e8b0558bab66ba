"""The one place where networks are made."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import biggan
from biggan.config import from_dict
from biggan.errors import UserError
from biggan.networks import FAMILIES, build_discriminator, build_generator, build_networks
from biggan.networks.base import DiscriminatorNetwork, GeneratorNetwork, shared_embedding

ROOT = Path(biggan.__file__).parent.parent
PACKAGES = ("biggan", "interventions", "spectra")


def test_nobody_else_makes_a_generator_or_a_discriminator() -> None:
    """Not even under another name: the classes are named where they are defined, and as strings in `FAMILIES`."""
    users = set()
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        calls = [ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        made = {call for call in calls if call.split(".")[-1] in ("Generator", "Discriminator")}
        users |= {f"{path}: {call}" for call in made - {"np.random.Generator", "torch.Generator"}}
    assert users == set()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_fills_the_protocol(family: str) -> None:
    config = from_dict({"model": {"family": family, "resolution": 32, "ch": 8}})
    G, D = build_networks(config)
    assert isinstance(G, GeneratorNetwork)
    assert isinstance(D, DiscriminatorNetwork)
    assert (G.resolution, G.classes) == (32, 10)
    assert type(build_generator(config)) is type(G)
    assert type(build_discriminator(config)) is type(D)
    assert shared_embedding(G).num_embeddings == 10


def test_an_unknown_family_gets_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"unknown model\.family 'biggan-dep'; did you mean 'biggan-deep'"):
        build_networks(from_dict({"model": {"family": "biggan-dep"}}))
