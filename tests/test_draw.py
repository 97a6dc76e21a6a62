"""The page to draw on, without a browser and in Chromium; skipped where Gradio is missing."""

import shutil

import pytest
from PIL import Image

from tests.helpers import PROJECT

pytest.importorskip("gradio", reason="pip install -r requirements-draw.txt")
import app


def test_an_upload_gets_a_sentence_and_what_each_network_reads(tmp_path):
    sentence, shown, *labels = app.answer(str(PROJECT / "docs" / "digit.png"))
    assert sentence == "## This is a 5." and shown.size == (280, 280)
    assert [max(label, key=label.get) for label in labels] == ["5", "5", "5"]
    sentence, *nothing = app.answer(Image.new("RGB", (280, 280), "white"))
    assert "nothing stands out" in sentence and nothing == [None] * 4
    assert app.answer(str(tmp_path / "seven.png"))[0].startswith("seven.png: ")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromedriver"), reason="needs chromium and chromedriver")
def test_a_digit_drawn_with_the_mouse_in_chromium_is_read():
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.support.ui import WebDriverWait

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for option in ("--headless=new", "--no-sandbox", "--window-size=1100,900"):
        options.add_argument(option)
    _, address, _ = app.page.launch(prevent_thread_lock=True, quiet=True, ssr_mode=False)
    browser = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        browser.get(address)
        wait = WebDriverWait(browser, 60)
        canvas = wait.until(lambda b: b.find_elements("css selector", "#pad canvas"))[0]
        mouse = webdriver.ActionChains(browser, duration=50)
        mouse.move_to_element_with_offset(canvas, -50, -60).click_and_hold()
        mouse.move_by_offset(90, 0).move_by_offset(-50, 130).release().perform()
        browser.find_element("xpath", "//button[normalize-space()='Read']").click()
        wait.until(lambda b: "This is a 7." in b.find_element("tag name", "body").text)
    finally:
        browser.quit()
        app.page.close()
