"""From a picture to MNIST's form, and what the trained networks read in it."""

from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from scipy import ndimage

from DataPipeline import make_loaders
from predict import classify, main, preprocess, verdict
from tests.drawings import clear, cut, networks, page, pen
from tests.helpers import PROJECT

FIVE = str(PROJECT / "docs" / "digit.png")
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def image(ink, color=BLACK, paper=WHITE):
    colors = np.array(paper) + ink[..., None] * np.subtract(color, paper)
    return Image.fromarray(colors.round().astype(np.uint8))


def answer(picture):
    try:
        return verdict(classify(preprocess(picture), networks()))
    except ValueError as error:
        return str(error)


def mnist(number, change=np.asarray, resize=None):
    picture = Image.fromarray(change(clear()[number][0]))
    return ImageOps.scale(picture, 10, resize) if resize is not None else picture


def sheet(number):
    table = Image.new("RGB", (440, 400), (50, 50, 50))
    table.paste(image(page(pen(number, 12, 150), (260, 240))), (90, 60))
    return table.rotate(10, Image.Resampling.BICUBIC, fillcolor=(50, 50, 50))


PLAIN = {
    "pen on white": lambda n: image(page(pen(n, 14))),
    "white on black": lambda n: image(page(pen(n, 14)), WHITE, BLACK),
    "red on green": lambda n: image(page(pen(n, 12)), (220, 80, 40), (40, 120, 40)),
    "thin pen": lambda n: image(page(pen(n, 3))),
    "thick marker": lambda n: image(page(pen(n, 34))),
    "small on a large page": lambda n: image(page(pen(n, 5, 60), (900, 700), (0.8, 0.7))),
    "at the edge": lambda n: image(page(pen(n, 14), place=(0, 0.3))),
    "cut to its box": lambda n: image(pen(n, 20)),
    "transparent": lambda n: Image.merge(
        "LA", [Image.new("L", (400, 400), 90), image(page(pen(n, 14)), WHITE, BLACK).convert("L")]
    ),
    "MNIST": mnist,
    "MNIST cut, enlarged smoothly": partial(mnist, change=cut, resize=Image.Resampling.BICUBIC),
    "MNIST cut, enlarged in blocks": partial(mnist, change=cut, resize=Image.Resampling.NEAREST),
    "8x8": lambda n: ImageOps.pad(mnist(n, cut), (8, 8), Image.Resampling.BOX),
}
OTHER = {
    "blank": lambda n: Image.new("RGBA", (1 + n, 60), (n, 100, 255 - n, 20 * (n % 2))),
    "noise": lambda n: Image.effect_noise((28 + 9 * n, 200), 5 + 5 * n),
    "uneven light": lambda n: Image.linear_gradient("L").rotate(10 * n, fillcolor=128),
    "two digits": lambda n: image(np.hstack([page(pen(n, 9), (260, 200))] * 2)),
    "ruled": lambda n: image(np.maximum(page(pen(n, 9)), np.arange(400)[:, None] % 50 < 3)),
    "framed": lambda n: image(np.pad(np.pad(page(pen(n, 9)), 6, constant_values=1), 50)),
    "by a dark edge": lambda n: ImageOps.expand(image(page(pen(n, 14))), (60, 0, 0, 0), BLACK),
    "sheet on a table": sheet,
}


@pytest.mark.parametrize("kind", PLAIN)
def test_nineteen_of_twenty_plain_pictures_are_read(kind):
    assert sum(answer(PLAIN[kind](n)) == digit for n, (_, digit) in enumerate(clear())) >= 19


@pytest.mark.parametrize("kind", OTHER)
def test_nineteen_of_twenty_other_pictures_are_refused_with_advice(kind):
    assert sum("; " in str(answer(OTHER[kind](n))) for n in range(20)) >= 19


def test_a_digit_has_mnists_size_and_center_and_mnists_images_keep_their_form():
    for number in range(20):
        picture = preprocess(image(page(pen(number, 14))))
        assert picture.dtype == torch.uint8 and picture.shape == (1, 28, 28)
        assert max(cut(picture[0].numpy()).shape) == 20 and picture.max() == 255
        assert ndimage.center_of_mass(picture[0].numpy()) == pytest.approx((14, 14), abs=0.6)
        assert np.abs(preprocess(mnist(number))[0].int().numpy() - clear()[number][0]).mean() < 15


def test_a_stroke_of_known_length_comes_out_about_two_pixels_wide():
    for width in (1, 6, 30):
        picture = preprocess(image(np.pad(np.ones((400, width)), 100)))
        assert 1.4 < picture.sum().item() / 255 / 20 < 2.3


def test_the_mode_and_the_turn_of_a_picture_do_not_matter():
    gray = image(page(pen(1, 14))).convert("L")
    pixels = np.asarray(gray)
    turned = gray.rotate(90, expand=True)
    turned.getexif()[0x0112] = 6  # as a camera notes it
    others = [gray.convert("RGB").convert(mode) for mode in ("P", "LA", "1", "CMYK")]
    others += [turned, *map(Image.fromarray, (pixels.astype("uint16") * 200, pixels / 255))]
    for other in others:
        assert (preprocess(other).float() - preprocess(gray).float()).abs().mean() < 3, other.mode


def test_a_file_that_is_no_picture_gets_one_sentence(tmp_path, capsys):
    (tmp_path / "a.png").write_bytes(b"%PDF-1.7")
    (tmp_path / "b.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    names = [str(tmp_path / name) for name in ("a.png", "b.png", "none.png")]
    assert main([*names, FIVE]) == 1
    out, err = capsys.readouterr()
    assert out.startswith(f"{FIVE}: 5 (v1: 5, ")
    for name, line in zip(names, err.splitlines(), strict=True):
        assert line.startswith(f"{name}: {'No such file' if 'none' in name else 'cannot identify'}")


def test_classify_gives_each_networks_probabilities_of_a_test_image(small):
    images, _ = next(iter(make_loaders(small)[1]))
    for name, probabilities in classify(small.test_images[3], networks()).items():
        torch.testing.assert_close(probabilities, networks()[name](images[3:4]).softmax(1)[0])
    with pytest.raises(ValueError, match=r"expected uint8 \[1, 28, 28\], not torch.float32"):
        classify(small.test_images[3] / 255, networks())


def test_missing_weights_are_named_and_disagreement_is_unsure(tmp_path, capsys, monkeypatch):
    assert main([FIVE, "--weights", str(tmp_path)]) == 1
    assert "v1.safetensors" in capsys.readouterr().err
    each = torch.eye(10)
    monkeypatch.setattr("predict.classify", lambda *_: {"v1": each[3], "final": each[5]})
    assert main([FIVE]) == 0
    assert f"{FIVE}: unsure (v1: 3, 99.9% sure; final: 5, 99.9% sure)" in capsys.readouterr().out
