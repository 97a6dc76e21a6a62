"""make draw: a digit drawn with the mouse in a real browser is read."""

import importlib.util
import itertools
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from unittest.mock import MagicMock

import pytest
from PIL import Image

from tests.helpers import PROJECT

missing = [
    *(name for name in ("gradio", "selenium") if not importlib.util.find_spec(name)),
    *(name for name in ("chromium", "chromedriver") if not shutil.which(name)),
]
needs_browser = pytest.mark.skipif(
    bool(missing),
    reason=f"needs {', '.join(missing)}: .venv-draw/bin/python -m pytest tests/test_draw.py, and "
    "Debian's chromium and chromium-driver",
)


def test_the_lock_of_the_page_holds_its_requirements_and_no_address():
    def pinned(name):
        text = (PROJECT / name).read_text(encoding="utf-8")
        assert "://" not in text
        return set(re.findall(r"^([\w.-]+==[\w.]+)", text, re.MULTILINE))

    asked = pinned("requirements.txt") | pinned("requirements-draw.txt")
    assert asked <= pinned("requirements-draw.lock")
    # Whatever else it can, it shares with the notebooks: Gradio wants an older Pillow.
    differs = pinned("requirements.lock") - pinned("requirements-draw.lock")
    assert {pin.split("==")[0] for pin in differs} <= {"pillow"}


@pytest.fixture
def app(monkeypatch):
    """app.py, without the page."""
    monkeypatch.setitem(sys.modules, "gradio", MagicMock())
    monkeypatch.delitem(sys.modules, "app", raising=False)
    yield importlib.import_module("app")
    del sys.modules["app"]


def test_a_picture_is_answered_with_what_the_networks_are_given_and_say(app, tmp_path):
    for pad in (None, app.blank()):
        sentence, *nothing = app.read_pad({"composite": pad})
        assert sentence.startswith("The pad is empty") and nothing == app.NOTHING
    with Image.open(PROJECT / "docs" / "digit.png") as five:
        sentence, shown, *labels = app.read_pad({"composite": five})
    assert sentence == "## This is a 5." and shown.size == (280, 280)
    assert [max(label, key=label.get) for label in labels] == ["5", "5", "5"]
    (tmp_path / "seven.png").write_bytes(b"seven")
    sentence, *nothing = app.answer(str(tmp_path / "seven.png"))
    assert sentence.startswith("seven.png is no picture") and nothing == app.NOTHING


@contextmanager
def served():
    """The page's address while app.py runs."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "app.py"]
    with subprocess.Popen(
        command, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, text=True
    ) as app:
        try:
            said = ""
            while not (found := re.search(r"http://127\.0\.0\.1:\d+", said)):
                line = app.stdout.readline()
                assert line, f"app.py ended: {said}"
                said += line
            yield found[0]
        finally:
            app.terminate()


@pytest.fixture(scope="module")
def browser():
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for option in ("--headless=new", "--no-sandbox", "--window-size=1100,700"):
        options.add_argument(option)
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    with served() as address:
        driver.get(address)
        yield driver
    driver.quit()


def wait(browser, condition, what):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 60).until(lambda _: condition(), f"no {what}")


def says(browser, text):
    wait(browser, lambda: text in browser.find_element("tag name", "body").text, text)


def press(browser, label):
    find = f"//button[normalize-space()='{label}']"
    wait(browser, lambda: browser.find_elements("xpath", find), label)[0].click()


def draw(browser, points):
    """Move the mouse, pressed, from point to point of the pad, in shares of its sides."""
    from selenium.webdriver.common.action_chains import ActionChains

    canvas = wait(browser, lambda: browser.find_elements("css selector", "#pad canvas"), "pad")[0]
    width, height = canvas.size["width"], canvas.size["height"]
    actions = ActionChains(browser, duration=10)
    for number, (x, y) in enumerate(points):
        # From the canvas' middle, in pixels.
        actions.move_to_element_with_offset(canvas, (x - 0.5) * width, (y - 0.5) * height)
        if not number:
            actions.click_and_hold()
    actions.release().perform()


def between(corners, steps=4):
    """The points on the way from corner to corner."""
    for (x, y), (u, v) in itertools.pairwise(corners):
        yield from ((x + (u - x) * k / steps, y + (v - y) * k / steps) for k in range(steps + 1))


@needs_browser
def test_an_empty_pad_gets_a_sentence_then_a_digit_drawn_with_the_mouse_is_read(browser):
    press(browser, "Read")
    says(browser, "The pad is empty")
    draw(browser, list(between([(0.35, 0.3), (0.65, 0.3), (0.48, 0.75)])))
    press(browser, "Read")
    says(browser, "This is a 7.")
    images = browser.find_elements("css selector", "#shown img")
    assert [image.get_property("naturalWidth") for image in images] == [280]
    body = browser.find_element("tag name", "body").text
    assert all(name in body for name in ("v1", "v2", "final")) and "empty" not in body


@needs_browser
def test_an_upload_is_read_and_what_is_no_picture_is_named(browser, tmp_path):
    def upload(path):
        # The first one is the pad's, which takes none.
        browser.find_elements("css selector", "input[type=file]")[-1].send_keys(str(path))

    upload(PROJECT / "docs" / "digit.png")
    says(browser, "This is a 5.")
    (tmp_path / "seven.png").write_bytes(b"seven")
    upload(tmp_path / "seven.png")
    says(browser, "\nseven.png is no picture")


@needs_browser
def test_the_page_asks_nothing_of_any_other_machine(browser):
    script = "return performance.getEntriesByType('resource').map(entry => entry.name)"
    names = browser.execute_script(script)
    home = browser.current_url
    assert names and all(name.startswith((home, "data:", "blob:")) for name in names)
