"""TensorBoard's own page in headless Chromium: the custom charts show lines."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import spectra

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM, reason="needs Chromium (Debian's package `chromium`)"),
]


def record(run: Path) -> None:
    networks = {"G": nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 4)), "D": nn.Linear(4, 3)}
    probes = ["singular_values", "frobenius"]
    monitor = spectra.Monitor(networks, run, every=1, probes=probes, tensorboard=run / "tensorboard")
    for step in range(1, 60):
        with torch.no_grad():
            for network in networks.values():
                for parameter in network.parameters():
                    parameter *= 1.02
        monitor.after_step(step, {"loss/G": float(np.sin(step)), "accuracy/D_real": 0.5 + step / 200})
    monitor.close()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def page(url: str, folder: Path) -> Image.Image:
    """A screenshot when the page has come to rest."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1400,1400"]
    options += [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=30000"]
    target = folder / "page.png"
    subprocess.run([CHROMIUM, *options, f"--screenshot={target}", url], check=True, capture_output=True, timeout=240)
    return Image.open(target).convert("RGB")


def test_custom_charts_show_lines(tmp_path: Path) -> None:
    """The charts open by themselves; their lines are the only orange below the page's header."""
    record(tmp_path)
    port = free_port()
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(tmp_path / "tensorboard"), "--port", str(port)]
    server = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | {"BROWSER": ""}
    )
    try:
        address = f"http://127.0.0.1:{port}/"
        for _ in range(120):
            try:
                tags = urllib.request.urlopen(f"{address}data/plugin/scalars/tags", timeout=5).read().decode()
                if "sigma0/D" in tags:
                    break
            except OSError:
                pass
            time.sleep(0.5)
        assert re.search("sigma0/G.0", tags)
        picture = page(f"{address}#custom_scalars", tmp_path)
    finally:
        server.terminate()
        server.wait()
    if keep := os.environ.get("KEEP_SCREENSHOT"):
        picture.save(keep)
    charts = np.asarray(picture).astype(int)[150:, 330:]  # without header and sidebar
    red, green, blue = charts[..., 0], charts[..., 1], charts[..., 2]
    lines = (red > 200) & (green > 60) & (green < 170) & (blue < 130)  # the run's colour; the buttons are blue
    assert lines.sum() > 500, "no chart shows a line"
    assert lines.any(axis=0).sum() > 200, "what is coloured is no line across a chart"
