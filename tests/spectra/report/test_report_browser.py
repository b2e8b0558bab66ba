"""The page of a run in headless Chromium: nothing is wider than the window, on a screen and on a narrow one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from torch import nn

import spectra
from spectra.report.document import run_page

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM, reason="needs Chromium (Debian's package `chromium`)"),
]
MEASURE = """<script>
document.querySelectorAll("details").forEach(one => { one.open = true });
const wide = [...document.querySelectorAll("td, p, img, h3, figcaption, dd")].filter(
  one => one.getBoundingClientRect().right > innerWidth + 1 || one.scrollWidth > one.clientWidth + 1);
document.title = `${innerWidth} ${document.documentElement.scrollWidth} ${wide.length}`;
</script>"""


@pytest.mark.parametrize("width", [1400, 700])
def test_nothing_is_cut_off(tmp_path: Path, width: int) -> None:
    name = "block_with_a_name_that_goes_on_and_on" * 3
    networks = {"G": nn.Sequential(), "D": nn.Linear(4, 3)}
    networks["G"].add_module(name, nn.Linear(3, 2))
    monitor = spectra.Monitor(networks, tmp_path, every=1, probes=["singular_values", "frobenius"])
    for step in range(1, 12):
        monitor.after_step(step, {"loss": 1.0, "x" * 150: 2.0})
    monitor.close()
    with open(tmp_path / "events.jsonl", "a") as file:
        file.write(json.dumps({"event": "alarm", "step": 5, "cause": "x" * 400}) + "\n")
    page = tmp_path / "page.html"
    page.write_text(run_page(tmp_path).replace("</body>", f"{MEASURE}</body>"))
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},1400", "--dump-dom"]
    options += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000"]
    dom = subprocess.run([CHROMIUM, *options, page.as_uri()], check=True, capture_output=True, text=True, timeout=120)
    found = re.search(r"<title>(\d+) (\d+) (\d+)</title>", dom.stdout)
    assert found, dom.stdout[:500]
    inner, scrolled, wide = map(int, found.groups())
    assert scrolled <= inner
    assert wide == 0
