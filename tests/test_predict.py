"""From any picture of a digit to MNIST's form, and what the trained networks then read."""

import contextlib
import io
import json
import os
import struct
import subprocess
import sys
import zlib
from itertools import combinations

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from scipy.ndimage import binary_dilation, center_of_mass

from DataPipeline import make_loaders
from helpers.checkpoint import weights_digest
from helpers.weights import save_weights
from predict import NAMES, as_text, load_networks, main, prepare, read, verdict
from tests import drawings
from tests.helpers import PROJECT, build, history

FONTS = {
    name: os.path.join(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf")
    for name in ("DejaVuSans", "DejaVuSerif", "DejaVuSansMono-Bold")
}


def printed(digit, font="DejaVuSans", size=150, canvas=(300, 260), at=(110, 40)):
    """A digit in a font, black on white; the font "Pillow" is the one built into it."""
    font = (
        ImageFont.load_default(size) if font == "Pillow" else ImageFont.truetype(FONTS[font], size)
    )
    image = Image.new("L", canvas, 255)
    ImageDraw.Draw(image).text(at, str(digit), fill=0, font=font, anchor="lt")
    return image


def drawn(digit, pen, seed=0):
    """A digit as a trembling mouse draws it in a paint program."""
    random = np.random.default_rng([seed, digit])
    how = {"height": 400, "canvas": (800, 600), "jag": 0.8, "at": random.uniform(0.1, 0.9, 2)}
    return drawings.on_paper(drawings.ink(digit, random, pen, **how), 255, 0)


def ink(image):
    """How much of each pixel of a drawing is ink, float [H, W], 0 to 1."""
    return 1 - np.asarray(image, dtype=np.float64) / 255


SAME = 10  # the difference of two pictures of one digit; of two digits' it is 17 or more


def difference(left, right):
    """The mean difference of two pictures' pixels, 0 to 255, at the best of nine places.

    A center of mass between two pixels may round to either.
    """
    moved = [right.roll((y, x), dims=(1, 2)) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    return min((left.float() - picture.float()).abs().mean().item() for picture in moved)


# What prepare gives


def test_the_difference_tells_two_digits_from_two_pictures_of_one():
    pictures = [prepare(printed(digit)) for digit in range(10)]
    assert all(difference(a, b) > 1.5 * SAME for a, b in combinations(pictures, 2))


@pytest.mark.parametrize("font", ["Pillow", *FONTS])
@pytest.mark.parametrize("digit", range(10))
def test_a_digit_fills_20_pixels_bright_on_black_and_centered_by_its_mass(font, digit):
    picture = prepare(printed(digit, font))
    assert picture.dtype == torch.uint8 and picture.shape == (1, 28, 28)
    rows, columns = picture[0].numpy().any(axis=1).nonzero()[0], picture[0].any(dim=0).nonzero()
    assert max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1 == 20
    assert all(abs(center - 14) <= 0.5 for center in center_of_mass(picture[0].numpy()))
    assert picture.max() == 255 and (picture == 0).float().mean() > 0.5
    assert ((picture > 0) & (picture < 255)).sum() > 20  # antialiased
    left, top, end, bottom = ImageOps.invert(printed(digit, font)).getbbox()
    wide, high = (columns[-1] - columns[0] + 1).item(), rows[-1] - rows[0] + 1
    assert abs(wide / high - (end - left) / (bottom - top)) < 0.08


def test_mnists_own_images_keep_their_form(mnist):
    """They are what MNIST's authors made, by the same rules, of other originals."""
    differences = []
    for image in mnist.test_images[:100]:
        picture = prepare(Image.fromarray(image[0].numpy()))
        differences.append(difference(picture, image))
        for mine, theirs in zip(*(map(center_of_mass, (picture[0], image[0]))), strict=True):
            assert abs(mine - theirs) <= 1
    assert np.mean(differences) < SAME


def test_light_on_dark_gives_what_dark_on_light_gives():
    for digit in range(10):
        image = printed(digit)
        assert difference(prepare(image), prepare(ImageOps.invert(image))) < SAME


@pytest.mark.parametrize("size", [60, 500])
@pytest.mark.parametrize("place", [(0, 0), (0.4, 0.7), (1, 0.5)])
def test_size_and_place_in_the_picture_do_not_matter(size, place):
    for digit in range(10):
        room = np.array([2 * size, 2 * size]) - (0.7 * size, 0.8 * size)
        at = tuple((room * place).round().astype(int))
        image = printed(digit, size=size, canvas=(2 * size, 2 * size), at=at)
        assert difference(prepare(image), prepare(printed(digit))) < SAME, digit


def colors(image, pen, paper):
    return ImageOps.colorize(image, black=pen, white=paper)


def transparent(image, pen):
    """A pen of one colour on nothing."""
    layer = Image.new("RGBA", image.size, pen)
    layer.putalpha(ImageOps.invert(image))
    return layer


def turned(image):
    """On its side, as a camera stores it, with the note that it is."""
    image, note = image.rotate(90, expand=True), Image.Exif()
    note[0x0112] = 6
    image.getexif().update(note)
    return image


def rubbed_out(image):
    """A black pen on nothing; under a half of it white has stayed, which nobody sees."""
    layer = np.zeros((*np.asarray(image).shape, 4), dtype=np.uint8)
    layer[:, : image.width // 2, :3] = 255
    layer[np.asarray(image) < 128] = (0, 0, 0, 255)
    return Image.fromarray(layer)


@pytest.mark.parametrize(
    "change",
    [
        rubbed_out,
        lambda image: colors(image, "blue", "white"),
        lambda image: colors(image, "yellow", "white"),
        lambda image: colors(image, "#dc5028", "#287828"),  # of about one luminance
        lambda image: transparent(image, "black"),
        lambda image: transparent(image, "white"),
        lambda image: image.convert("LA"),
        lambda image: image.convert("P"),
        lambda image: image.convert("1"),
        lambda image: image.convert("RGB").convert("CMYK"),
        lambda image: Image.fromarray((60_000 - 50_000 * ink(image)).astype(np.uint16)),
        lambda image: Image.fromarray((4_000 - 3_000 * ink(image)).astype(np.int32)),
        lambda image: Image.fromarray((1 - ink(image)).astype(np.float32)),
        turned,
        lambda image: ImageOps.expand(image, 2, fill=0),  # a frame
        lambda image: image.crop(ImageOps.invert(image).getbbox()),  # no margin
        lambda image: image.resize((3000, 2600)),
        lambda image: image.resize((60, 52)),
    ],
)
def test_colors_transparency_and_the_kind_of_file_do_not_matter(change):
    for digit in (1, 2, 4, 7):
        image = printed(digit)
        assert difference(prepare(change(image)), prepare(image)) < SAME, digit


def test_a_digit_wider_than_high_is_20_pixels_wide():
    image = printed(2).resize((900, 260))
    left, top, end, bottom = ImageOps.invert(image).getbbox()
    rows, columns = (prepare(image)[0].any(dim=d).nonzero().flatten() for d in (1, 0))
    assert columns[-1] - columns[0] + 1 == 20
    high = (rows[-1] - rows[0] + 1).item()
    assert high == pytest.approx(20 * (bottom - top) / (end - left), abs=1.5)


@pytest.mark.parametrize("turns", range(4))
def test_a_shape_whose_mass_lies_at_one_end_is_kept_whole(turns):
    """With its center of mass in the middle it would stick out of the picture."""
    image = Image.new("L", (400, 400), 255)
    ImageDraw.Draw(image).line([(200, 60), (200, 340)], fill=0, width=14)
    ImageDraw.Draw(image).rectangle([100, 300, 300, 340], fill=0)
    picture = prepare(image.rotate(90 * turns))[0]
    rows, columns = (picture.any(dim=d).nonzero().flatten() for d in (1, 0))
    assert max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1 == 20


@pytest.mark.parametrize("pen", [1, 2, 3, 6, 12, 30])
def test_strokes_come_out_as_wide_as_mnists_whatever_the_pen(pen):
    """Their width is the ink over the length of the lines, which here is known."""
    image = Image.new("L", (800, 600), 255)
    ImageDraw.Draw(image).line([(300, 100), (500, 100), (420, 500)], fill=0, width=pen)
    picture = prepare(image)
    length = 20 / (400 + pen) * (200 + np.hypot(80, 400))
    assert 2 < picture.sum().item() / 255 / length < 4.2


def photographed(image, desk=0):
    """As a camera sees it: light from one side, noise, and to the left and below a dark desk."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[-1 : 1 : image.height * 1j, -1 : 1 : image.width * 1j]
    seen = (160 + 30 * x + 20 * y - 20 * (x * x + y * y)) * (1 - 0.6 * ink(image))
    seen = np.pad(seen, ((0, desk), (desk, 0)), constant_values=50)
    return Image.fromarray((seen + random.normal(0, 6, seen.shape)).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("desk", [0, 25])
def test_uneven_light_noise_and_the_edge_of_a_desk_are_left_out_of_a_photograph(desk):
    for digit in range(10):
        image = drawn(digit, pen=16)
        assert difference(prepare(photographed(image, desk)), prepare(image)) < SAME, digit


def test_specks_and_a_thumb_in_the_corner_are_no_part_of_the_digit():
    image = printed(3)
    dirty = image.copy()
    for x, y in np.random.default_rng(0).integers(5, 250, (30, 2)):
        ImageDraw.Draw(dirty).rectangle([x, y, x + 1, y + 1], fill=0)
    ImageDraw.Draw(dirty).ellipse([-60, -60, 60, 60], fill=40)
    assert difference(prepare(dirty), prepare(image)) < SAME


def test_the_file_and_the_opened_image_give_the_same_and_stay_as_they_were(tmp_path):
    image = printed(5)
    image.save(tmp_path / "five.png")
    before = (tmp_path / "five.png").read_bytes()
    assert torch.equal(prepare(tmp_path / "five.png"), prepare(str(tmp_path / "five.png")))
    assert torch.equal(prepare(tmp_path / "five.png"), prepare(image))
    assert (tmp_path / "five.png").read_bytes() == before and image == printed(5)


def test_the_text_has_a_half_block_for_every_dark_pixel():
    picture = torch.randint(0, 256, (1, 28, 28), dtype=torch.uint8)
    rows = []
    for line in as_text(picture).split("\n"):
        rows += [[c in "▀█" for c in line], [c in "▄█" for c in line]]
    assert torch.equal(torch.tensor(rows), picture[0] > 127)


# What is no digit


def png(width, height):
    """A PNG file that says it has this size, and holds next to nothing."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def file(image, kind="PNG"):
    """An image as the bytes of a file."""
    data = io.BytesIO()
    image.save(data, kind)
    return data.getvalue()


BROKEN = {
    "empty.png": (b"", "no picture"),
    "text.png": (b"seven", "no picture"),
    "paper.pdf": (b"%PDF-1.7\n1 0 obj\n", "no picture"),
    "program.eps": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
        "no picture",
    ),
    "half.png": (file(printed(2))[:300], "damaged"),
    "half.jpg": (file(printed(2), "JPEG")[:900], "damaged"),
    "holes.png": (png(20, 20), "damaged"),
    "bomb.png": (png(60_000, 60_000), "over 89 million pixels"),
    "large.png": (png(10_000, 10_000), "over 89 million pixels"),
    "white.png": (file(Image.new("L", (60, 60), 255)), "shows no single digit: nothing stands out"),
    "dot.png": (file(Image.new("1", (1, 1))), "shows no single digit: nothing stands out"),
    "nothing.png": (
        file(Image.new("RGBA", (60, 60), (255, 0, 0, 0))),
        "shows no single digit: nothing stands out",
    ),
    "gray.png": (file(Image.effect_noise((200, 200), 5)), "nothing stands out from"),
    "noise.png": (file(Image.effect_noise((200, 200), 90)), "nothing stands out from"),
    "nan.tif": (file(Image.fromarray(np.full((9, 9), np.nan, "float32")), "TIFF"), "holds NaN"),
}


def photo(seed, noise):
    """A blank paper in uneven light."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[-1:1:300j, -1:1:300j]
    a, b, c, d = random.uniform(-1, 1, 4)
    light = 150 + 60 * a * x + 60 * b * y + 40 * c * x * x + 40 * d * y * y
    return drawings.gray(light + random.normal(0, noise, (300, 300)))


def side_by_side(axis, *digits):
    """Several digits in a row or above each other."""
    random = np.random.default_rng([axis, *digits])
    every = [drawings.ink(d, random, pen=9, height=140, canvas=(200, 200)) for d in digits]
    return drawings.on_paper(np.concatenate(every, axis=axis))


def specks(seed):
    random = np.random.default_rng(seed).uniform(size=(400, 400)) < 2e-4
    return drawings.on_paper(binary_dilation(random, iterations=3).astype(float))


def filled(height, width):
    return drawings.on_paper(np.pad(np.ones((height, width)), 60))


NONE = {
    "blank photographs": [photo(seed, noise) for seed in range(4) for noise in (0, 3, 9)],
    "two digits": [side_by_side(1, d, (d + 3) % 10) for d in range(10)],
    "one above the other": [side_by_side(0, 2, 5), side_by_side(0, 8, 8)],
    "three digits": [side_by_side(1, 4, 0, 7), side_by_side(1, 1, 1, 1)],
    "specks": [specks(seed) for seed in range(4)],
    "filled boxes": [filled(150, 150), filled(150, 110), filled(100, 180)],
    "every pixel at random": [
        drawings.gray(255 * np.random.default_rng(0).integers(0, 2, (side, side)))
        for side in (28, 300)
    ],
}


@pytest.mark.parametrize("kind", NONE)
def test_what_is_no_single_digit_is_refused(kind):
    for number, image in enumerate(NONE[kind]):
        with pytest.raises(ValueError, match=r"the image shows no single digit: .*\.$") as error:
            prepare(image)
            pytest.fail(f"number {number} was taken for a digit")
        assert str(error.value).isprintable()


@pytest.mark.slow
def test_hardly_any_of_mnists_images_is_refused(mnist):
    refused = 0
    for image in mnist.test_images[::10]:
        try:
            prepare(Image.fromarray(image[0].numpy()))
        except ValueError:
            refused += 1
    assert refused <= 2  # of 1,000


@pytest.mark.parametrize("array", [np.zeros((28, 28), "uint8"), torch.zeros(1, 28, 28)])
def test_an_array_or_a_tensor_gets_a_sentence(array):
    with pytest.raises(TypeError, match=f"not a {type(array).__name__}: PIL.Image.fromarray"):
        prepare(array)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_into_which_nobody_writes_is_refused(tmp_path):
    os.mkfifo(tmp_path / "v1.safetensors")
    for attempt in (lambda: prepare(tmp_path / "v1.safetensors"), lambda: load_networks(tmp_path)):
        with pytest.raises(ValueError, match="is a pipe or a device: save it as a file first"):
            attempt()


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_digit_gets_one_sentence_that_names_it(name, tmp_path):
    content, message = BROKEN[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} .*{message}") as error:
        prepare(tmp_path / name)
    assert "\n" not in str(error.value) and str(error.value).endswith(".")


def test_a_missing_file_and_a_folder_are_pythons_own_errors(tmp_path):
    with pytest.raises(FileNotFoundError):
        prepare(tmp_path / "none.png")
    with pytest.raises((IsADirectoryError, PermissionError)):
        prepare(tmp_path)


# The command


@pytest.fixture
def weights(tmp_path):
    """A folder of weights, untrained."""
    for name in NAMES:
        network = build(name)
        run = history(variant=name, weights=weights_digest(network))
        save_weights(network, tmp_path / f"{name}.safetensors", run)
    return str(tmp_path)


def test_the_command_says_a_line_for_each_picture(weights, tmp_path, capsys):
    paths = [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    for digit, path in enumerate(paths):
        printed(digit).save(path)
    assert main([*paths, "--weights", weights]) == 0
    out, err = capsys.readouterr()
    assert not err
    for path, line in zip(paths, out.splitlines(), strict=True):
        readings = read(prepare(path), load_networks(weights))
        digit = verdict(readings)
        assert line.startswith(f"{path}: {'unsure' if digit is None else digit} (v1: ")
        for name, likely in readings.items():
            (first, second), (digit, other) = (found.tolist() for found in likely.topk(2))
            sure = f"{100 * first:.1f} % sure (or {other}: {100 * second:.1f} %)"
            assert f"{name}: {digit}, {sure}" in line
            assert likely.shape == (10,) and likely.sum().item() == pytest.approx(1)


def test_a_folder_stands_for_its_pictures_and_show_for_what_the_networks_get(tmp_path, capsys):
    for name in ("b.png", "a.JPG"):
        printed(5).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "empty").mkdir()
    assert main([str(tmp_path), str(tmp_path / "empty"), "--show"]) == 1
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert [line.split(" (")[0] for line in lines[::15]] == [
        f"{tmp_path / name}: 5" for name in ("a.JPG", "b.png")
    ]
    assert "\n".join(lines[16:]) == as_text(prepare(tmp_path / "b.png"))
    assert err.startswith(f"{tmp_path / 'empty'} holds no picture in PNG, ")


def test_json_has_a_line_for_each_picture(tmp_path, capsys):
    printed(5).save(tmp_path / "five.png")
    assert main([str(tmp_path / "five.png"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["picture"], found["digit"]) == (str(tmp_path / "five.png"), 5)
    readings = read(prepare(tmp_path / "five.png"), load_networks())
    assert found["probabilities"] == {name: likely.tolist() for name, likely in readings.items()}


def test_networks_that_disagree_are_unsure(tmp_path, capsys, monkeypatch):
    printed(5).save(tmp_path / "five.png")
    likely = torch.eye(10)
    readings = {"v1": likely[3], "v2": likely[3], "final": likely[5]}
    assert verdict(readings) is None and verdict({"v1": likely[3], "v2": likely[3]}) == 3
    monkeypatch.setattr("predict.read", lambda picture, networks: readings)
    main([str(tmp_path / "five.png")])
    assert "five.png: unsure (v1: 3, > 99.9 % sure; v2" in capsys.readouterr().out


def run(*arguments, cwd, shell=""):
    """The command as a process of its own; what it gives and says."""
    done = subprocess.run(
        ["bash", "-c", f'"$0" "$@" {shell}', sys.executable, PROJECT / "predict.py", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "Traceback" not in done.stderr + done.stdout and "Exception" not in done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs bash")
def test_from_any_folder_and_whatever_becomes_of_its_output(tmp_path):
    for number in range(3):
        printed(number).save(tmp_path / f"{number}.png")
    code, out, err = run(".", cwd=tmp_path)
    assert code == 0 and not err
    assert [line.split(" (")[0] for line in out.splitlines()] == [
        "0.png: 0",
        "1.png: 1",
        "2.png: 2",
    ]
    code, out, err = run(".", shell="| head -n 0", cwd=tmp_path)
    assert not out and not err
    assert run("none.png", "1.png", shell="2>&-", cwd=tmp_path)[:1] == (1,)
    assert run("1.png", shell=">&-", cwd=tmp_path) == (0, "", "")
    if os.path.exists("/dev/full"):
        code, _, err = run("1.png", shell=">/dev/full", cwd=tmp_path)
        assert code == 1 and err == "The output could not be written: No space left on device.\n"
        assert run("none.png", shell="2>/dev/full", cwd=tmp_path)[0] == 1


def test_the_command_names_what_it_could_not_read_and_reads_the_rest(weights, tmp_path, capsys):
    printed(4).save(tmp_path / "four.png")
    (tmp_path / "paper.pdf").write_bytes(BROKEN["paper.pdf"][0])
    paths = [str(tmp_path / name) for name in ("paper.pdf", "none.png", "four.png")]
    assert main([*paths, "--weights", weights]) == 1
    out, err = capsys.readouterr()
    assert out.startswith(paths[-1])
    lines = err.splitlines()
    assert len(lines) == 2 and all(line.endswith(".") for line in lines)
    assert "paper.pdf" in lines[0] and "none.png: No such file" in lines[1]


def test_without_weights_the_command_says_what_makes_them(tmp_path, capsys):
    assert main(["four.png", "--weights", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert not out and len(err.splitlines()) == 1
    assert "v1.safetensors is missing: make notebooks" in err


# What the committed networks read


@pytest.fixture(scope="module")
def networks():
    return load_networks()


def test_read_wants_evaluation_mode_and_bytes(networks):
    picture = prepare(printed(5))
    for wrong in (picture / 255, picture[0], picture[None], picture.float()):
        with pytest.raises(ValueError, match=r"expected torch.uint8 \[1, 28, 28\]"):
            read(wrong, networks)
    training = load_networks()
    training["v2"].train()
    with pytest.raises(ValueError, match=r"v2 is in training mode: call its eval\(\) first"):
        read(picture, training)


@pytest.mark.slow
@pytest.mark.parametrize("kind", drawings.KINDS)
def test_final_reads_nineteen_of_twenty_of_each_kind_of_drawing(kind, networks):
    """The thresholds were found on seeds 0 to 7; this one was not looked at before."""
    lined = kind in ("framed at the rim", "framed inside", "ruled", "squared")
    found = right(drawings.pictures(kind, seed=2024), networks)["final"]
    assert found >= (18 if lined else 19)


def test_a_picture_is_given_to_the_networks_as_the_test_images_are(networks, small):
    images, _ = next(iter(make_loaders(small)[1]))
    for number, picture in enumerate(small.test_images[:5]):
        for name, likely in read(picture, networks).items():
            expected = networks[name](images[number : number + 1]).softmax(1)[0]
            torch.testing.assert_close(likely, expected)


def right(images, networks):
    """Of (digit, image) pairs, how many each network reads right."""
    counts = dict.fromkeys(networks, 0)
    for digit, image in images:
        with contextlib.suppress(ValueError):  # refused
            for name, likely in read(prepare(image), networks).items():
                counts[name] += likely.argmax().item() == digit
    return counts


def test_the_networks_read_nine_of_ten_printed_digits(networks):
    images = [(digit, printed(digit, font)) for digit in range(10) for font in ("Pillow", *FONTS)]
    assert all(count >= 36 for count in right(images, networks).values())


def test_final_reads_nine_of_ten_digits_drawn_with_a_mouse(networks):
    images = [
        (digit, drawn(digit, pen, seed=seed))
        for digit in range(10)
        for seed, pen in enumerate((2, 5, 12))
    ]
    assert right(images, networks)["final"] >= 27


def test_final_reads_mnists_images_as_well_after_prepare_as_before(networks, mnist):
    pairs = list(zip(mnist.test_labels[:200].tolist(), mnist.test_images[:200], strict=True))
    images = [(digit, Image.fromarray(image[0].numpy())) for digit, image in pairs]
    before = sum(read(image, networks)["final"].argmax() == digit for digit, image in pairs)
    assert right(images, networks)["final"] >= before - 2


def test_the_picture_in_the_docs_is_a_5_to_all_three(networks):
    assert set(right([(5, PROJECT / "docs" / "digit.png")], networks).values()) == {1}
