"""From any picture of a digit to MNIST's form, and what the trained networks then read."""

import io
import os
import struct
import zlib
from itertools import combinations

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from scipy.ndimage import center_of_mass

from DataPipeline import make_loaders
from helpers.weights import save_weights
from predict import NAMES, as_text, load_networks, main, prepare, read
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


# Lines from corner to corner, in hundredths of the digit's box.
LINES = [
    [(50, 2), (20, 15), (8, 50), (20, 85), (50, 98), (80, 85), (92, 50), (80, 15), (45, 3)],
    [(55, 0), (48, 100)],
    [(12, 25), (30, 4), (60, 2), (82, 20), (75, 42), (40, 70), (8, 98), (90, 98)],
    [(12, 12), (45, 0), (80, 12), (78, 36), (42, 48), (82, 60), (88, 82), (50, 100), (10, 88)],
    [(15, 2), (12, 50), (85, 50), (82, 0), (80, 100)],
    [(85, 2), (22, 2), (18, 42), (55, 38), (88, 60), (78, 90), (40, 100), (10, 88)],
    [(70, 0), (30, 28), (12, 65), (25, 95), (60, 100), (85, 80), (70, 55), (40, 55), (15, 75)],
    [(8, 4), (90, 4), (40, 100)],
    [(75, 15), (45, 0), (18, 18), (75, 65), (80, 88), (48, 100), (15, 85), (72, 35), (78, 15)],
    [(82, 30), (55, 2), (20, 15), (20, 42), (50, 50), (80, 30), (80, 60), (68, 100)],
]


def drawn(digit, pen, height=400, canvas=(800, 600), seed=0):
    """A digit as a trembling mouse draws it in a paint program: jagged lines of one pen."""
    random = np.random.default_rng([seed, digit])
    corners = np.array(LINES[digit]) / 100 * (0.6 * height, height)
    corners += random.uniform(pen, np.array(canvas) - (0.6 * height + pen, height + pen))
    steps = np.linspace(0, len(corners) - 1, 8 * len(corners))
    path = np.stack([np.interp(steps, range(len(corners)), axis) for axis in corners.T], axis=1)
    path += random.normal(0, height / 120, path.shape)
    image = Image.new("L", canvas, 255)
    ImageDraw.Draw(image).line([tuple(xy) for xy in path.round()], fill=0, width=pen, joint="curve")
    return image


def ink(image):
    """How much of each pixel of a drawing is ink, float [H, W], 0 to 1."""
    return 1 - np.asarray(image, dtype=np.float64) / 255


SAME = 10  # the difference of two pictures of one digit; of two digits' it is 17 or more


def difference(left, right):
    """The mean difference of two pictures' pixels, 0 to 255, at the best of nine places.

    A centre of mass between two pixels may round to either.
    """
    moved = [right.roll((y, x), dims=(1, 2)) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    return min((left.float() - picture.float()).abs().mean().item() for picture in moved)


# What prepare gives


def test_the_difference_tells_two_digits_from_two_pictures_of_one():
    pictures = [prepare(printed(digit)) for digit in range(10)]
    assert all(difference(a, b) > 1.5 * SAME for a, b in combinations(pictures, 2))


@pytest.mark.parametrize("font", ["Pillow", *FONTS])
@pytest.mark.parametrize("digit", range(10))
def test_a_digit_fills_20_pixels_bright_on_black_and_centred_by_its_mass(font, digit):
    picture = prepare(printed(digit, font))
    assert picture.dtype == torch.uint8 and picture.shape == (1, 28, 28)
    rows, columns = picture[0].numpy().any(axis=1).nonzero()[0], picture[0].any(dim=0).nonzero()
    assert max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1 == 20
    assert all(abs(centre - 14) <= 0.5 for centre in center_of_mass(picture[0].numpy()))
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


def colours(image, pen, paper):
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
        lambda image: colours(image, "blue", "white"),
        lambda image: colours(image, "yellow", "white"),
        lambda image: colours(image, "#dc5028", "#287828"),  # of about one luminance
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
def test_colours_transparency_and_the_kind_of_file_do_not_matter(change):
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
    """With its centre of mass in the middle it would stick out of the picture."""
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
    "white.png": (file(Image.new("L", (60, 60), 255)), "shows no digit"),
    "dot.png": (file(Image.new("1", (1, 1))), "shows no digit"),
    "nothing.png": (file(Image.new("RGBA", (60, 60), (255, 0, 0, 0))), "shows no digit"),
    "grey.png": (file(Image.effect_noise((200, 200), 5)), "shows no digit"),
}


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
        save_weights(build(name), tmp_path / f"{name}.safetensors", history(variant=name))
    return str(tmp_path)


def test_the_command_shows_each_picture_and_what_every_variant_says(weights, tmp_path, capsys):
    paths = [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    for digit, path in enumerate(paths):
        printed(digit).save(path)
    assert main([*paths, "--weights", weights]) == 0
    out, err = capsys.readouterr()
    assert not err
    for path in paths:
        picture = prepare(path)
        assert f"{path}, as the networks are given it:\n{as_text(picture)}\n" in out
        for name, likely in read(picture, load_networks(weights)).items():
            (first, second), (digit, other) = (found.tolist() for found in likely.topk(2))
            sure = f"{100 * first:.1f} % sure (or {other}: {100 * second:.1f} %)"
            assert f"{name}: {digit}, {sure}\n" in out
            assert likely.shape == (10,) and likely.sum().item() == pytest.approx(1)


def test_the_command_names_what_it_could_not_read_and_reads_the_rest(weights, tmp_path, capsys):
    printed(4).save(tmp_path / "four.png")
    (tmp_path / "paper.pdf").write_bytes(BROKEN["paper.pdf"][0])
    paths = [str(tmp_path / name) for name in ("paper.pdf", "none.png", ".", "four.png")]
    assert main([*paths, "--weights", weights]) == 1
    out, err = capsys.readouterr()
    assert out.startswith(paths[-1])
    lines = err.splitlines()
    assert len(lines) == 3 and all(line.endswith(".") for line in lines)
    assert "paper.pdf" in lines[0] and "none.png: No such file" in lines[1]


def test_without_weights_the_command_says_what_makes_them(tmp_path, capsys):
    assert main(["four.png", "--weights", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert not out and len(err.splitlines()) == 1
    assert "v1.safetensors is missing: make notebooks" in err


# What the committed networks read


@pytest.fixture(scope="module")
def networks():
    return load_networks(PROJECT / "results")


def test_a_picture_is_given_to_the_networks_as_the_test_images_are(networks, small):
    images, _ = next(iter(make_loaders(small)[1]))
    for number, picture in enumerate(small.test_images[:5]):
        for name, likely in read(picture, networks).items():
            expected = networks[name](images[number : number + 1]).softmax(1)[0]
            torch.testing.assert_close(likely, expected)


def right(images, networks):
    """Of (digit, image) pairs, how many each network reads right."""
    readings = [(digit, read(prepare(image), networks)) for digit, image in images]
    return {
        name: sum(reading[name].argmax().item() == digit for digit, reading in readings)
        for name in networks
    }


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
