"""The rows of a layer by its name; a wrong one is no empty frame."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import spectra


@pytest.fixture
def frames(tmp_path: Path) -> dict:
    networks = {"G": nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 3)), "D": nn.Sequential(nn.Linear(3, 2))}
    monitor = spectra.Monitor(networks, tmp_path, every=1, probes=["singular_values", "gradient_norms"])
    for step in (1, 2):
        for name, network in networks.items():
            monitor.before_update(name)
            network(torch.ones(1, 3)).sum().backward()
            monitor.after_backward(name)
        monitor.after_step(step, {"loss/G": 1.0})
    monitor.close()
    return spectra.load(tmp_path)


def test_rows_of_layers_networks_parameters_and_scalars(frames: dict) -> None:
    assert set(spectra.rows_named(frames["spectra"], "G.0").layer) == {"G.0"}
    assert len(spectra.rows_named(frames["spectra"], "G.0", "D.0")) == 4
    assert set(spectra.rows_named(frames["spectra"], "G").layer) == {"G.0", "G.1"}
    assert set(spectra.rows_named(frames["gradients"], "G.1.bias").parameter) == {"G.1.bias"}
    assert spectra.rows_named(frames["scalars"], "loss/G").value.tolist() == [1.0, 1.0]


def test_a_wrong_name_is_an_error_with_the_nearest(frames: dict) -> None:
    with pytest.raises(
        ValueError, match=r"no layer called '1' was recorded; did you mean 'G.1'\? Recorded: G.0, G.1, D.0"
    ):
        spectra.rows_named(frames["spectra"], "1")
    with pytest.raises(ValueError, match=r"did you mean 'G.0' or 'D.0'"):
        spectra.rows_named(frames["spectra"], "0")
    with pytest.raises(ValueError, match=r"no parameter called 'G.1.wieght' was recorded; did you mean 'G.1.weight'"):
        spectra.rows_named(frames["gradients"], "G.1.wieght")
    with pytest.raises(ValueError, match="no column layer"):
        spectra.rows_named(frames["events"], "G.0")
