"""The page to draw on: what its file holds and, in Chromium, that it computes what Python does."""

import json
import shutil
import subprocess

import pytest
import torch
from PIL import Image

from DataPipeline import normalize
from helpers import sketchpad
from predict import load_networks, preprocess
from tests.drawings import page, pen

CHROMIUM = [*filter(shutil.which, ("chromium", "google-chrome", "chromium-browser"))]
LINES = {  # what is drawn, and what the page says to it
    "190,60 215,350": "This is a 1.",
    "110,120 190,60 270,120 120,330 290,325": "This is a 2.",
    "150,60 90.5,210 300,205 240,210 245,120 235.2,350": "This is a 4.",
    "285,75 155,80 145,185 240,170 285,245 240,325 125,310": "This is a 5.",
    "150,140 220,140 180,260": "This is a 7.",
    "100,200 300,210": "It is wider than a digit; draw one digit.",
}
SCRIPT = """<script>
const [images, pages, lines] = INPUT;
const values = Object.values(NETWORKS).map((n) => images.map((image) => logits(n, image)));
const found = pages.map((page) => [page, [...preprocess(Uint8Array.from(page), 400, 400)], ""]);
const gray = (c, side) => [...c.getImageData(0, 0, side, side).data.filter((_, i) => i % 4 === 0)];
for (const line of lines) {
  clear.onclick();
  line.split(" ").reduce((from, to) => { draw(from, to); return to; });
  read();
  found.push([gray(paper, 400), gray(given.getContext("2d"), 28), verdict.textContent]);
}
document.body.innerHTML = `<pre>${JSON.stringify([values, found])}</pre>`;
</script>"""


def test_the_page_holds_the_networks_and_loads_nothing():
    lines = sketchpad.PAGE.read_text("utf-8").splitlines()
    assert sketchpad.networks_line() in lines and len(lines) <= 200 and "://" not in "".join(lines)


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="needs Chromium")
def test_the_page_computes_in_chromium_what_python_does(mnist, tmp_path):
    images, copy = mnist.test_images[:200], tmp_path / "draw.html"
    pages = [(255 - 255 * page(pen(n, 24, 250))).astype(int).ravel().tolist() for n in range(5)]
    given = json.dumps([images.flatten(1).tolist(), pages, [*LINES]])
    copy.write_text(sketchpad.PAGE.read_text("utf-8") + SCRIPT.replace("INPUT", given))
    command = [CHROMIUM[0], "--headless=new", "--no-sandbox", "--dump-dom", copy.as_uri()]
    output = subprocess.check_output(command, text=True, timeout=300)
    logits, found = json.loads(output.split("<pre>")[-1].split("</pre>")[0])
    wanted = torch.stack([network(normalize(images / 255)) for network in load_networks().values()])
    torch.testing.assert_close(torch.tensor(logits), wanted.detach(), atol=1e-3, rtol=0)
    for (drawn, picture, said), expected in zip(found, [""] * 5 + [*LINES.values()], strict=True):
        image = Image.frombytes("L", (400, 400), bytes(drawn))
        assert said == expected
        assert not any(picture) or preprocess(image).flatten().tolist() == picture
