"""Pictures of known digits, of 24 kinds: by pen, paper, light and file, framed, ruled and squared.

python -m tests.drawings FOLDER SEED writes those of a seed into a folder, to be looked at.
"""

import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps
from scipy.interpolate import make_interp_spline

# Each digit in two hands: strokes of points, in hundredths of a box 100 high, smoothly joined.
HANDS = [
    (
        [[(40, 0), (15, 12), (2, 50), (14, 90), (36, 100), (58, 88), (68, 50), (58, 12), (37, 1)]],
        [[(55, 8), (30, 0), (8, 25), (4, 70), (24, 99), (50, 85), (62, 45), (50, 6), (34, 3)]],
    ),
    (
        [[(30, 0), (28, 50), (27, 100)]],
        [[(5, 28), (20, 14), (34, 0)], [(34, 0), (33, 50), (32, 100)]],
    ),
    (
        [
            [(6, 24), (14, 6), (36, 0), (56, 12), (56, 34), (36, 64), (4, 98)],
            [(4, 98), (36, 97), (68, 98)],
        ],
        [[(4, 18), (26, 0), (54, 10), (54, 36), (30, 72), (2, 94)], [(2, 94), (30, 92), (64, 98)]],
    ),
    (
        [[(4, 12), (28, 0), (54, 12), (50, 36), (26, 46)],
         [(26, 46), (54, 54), (60, 78), (36, 100), (2, 88)]],
        [[(8, 6), (34, 0), (54, 16), (44, 38), (24, 45)],
         [(24, 45), (52, 58), (54, 86), (28, 100), (4, 92)]],
    ),
    (
        [[(14, 0), (10, 28), (4, 56)], [(4, 56), (36, 57), (68, 55)],
         [(52, 2), (50, 50), (48, 100)]],
        [[(48, 0), (26, 32), (0, 66)], [(0, 66), (34, 66), (70, 66)],
         [(50, 30), (50, 64), (49, 100)]],
    ),
    (
        [[(60, 0), (36, 1), (14, 2)], [(14, 2), (12, 22), (8, 44)],
         [(8, 44), (34, 36), (58, 52), (58, 82), (34, 100), (4, 90)]],
        [[(56, 2), (34, 2), (12, 4)], [(12, 4), (11, 24), (10, 46)],
         [(10, 46), (40, 40), (60, 62), (50, 92), (22, 99), (2, 88)]],
    ),
    (
        [[(50, 0), (22, 22), (4, 64), (14, 94), (38, 99), (58, 82), (54, 60), (32, 54), (8, 68)]],
        [[(38, 0), (14, 34), (4, 72), (22, 98), (48, 96), (60, 76), (44, 58), (20, 62), (8, 76)]],
    ),
    (
        [[(2, 3), (32, 3), (66, 2)], [(66, 2), (44, 46), (28, 100)]],
        [[(4, 6), (34, 4), (60, 3)], [(60, 3), (46, 40), (40, 100)]],
    ),
    (
        [[(54, 14), (34, 0), (12, 14), (22, 38), (48, 58), (56, 84), (32, 100), (8, 86), (16, 60),
          (42, 40), (54, 14)]],
        [[(32, 0), (12, 10), (14, 34), (34, 48), (56, 70), (48, 94), (24, 99), (6, 84), (16, 60),
          (36, 46), (54, 28), (50, 8), (32, 0)]],
    ),
    (
        [[(58, 16), (36, 0), (10, 16), (10, 40), (32, 50), (54, 36), (58, 16)],
         [(58, 16), (56, 56), (46, 100)]],
        [[(54, 22), (34, 2), (10, 16), (8, 38), (28, 50), (50, 38), (55, 12)],
         [(55, 12), (55, 56), (54, 100)]],
    ),
]  # fmt: skip


def ink(digit, random, pen=14, height=220, canvas=(400, 400), at=None, turn=6, hand=None, jag=0):
    """A digit drawn by hand: how much of each pixel its ink covers, float [H, W], 0 to 1.

    pen, height: in pixels; a tenth more or less, as the slant and the turn, in degrees, are random.
    at: the place in the canvas, two shares of the room there is; random in the middle without one.
    """
    strokes = HANDS[digit][random.integers(2) if hand is None else hand]
    angle, slant = np.radians(random.uniform(-turn, turn)), random.uniform(-0.15, 0.15)
    size = height / 100 * random.uniform(0.9, 1.1)
    matrix = (
        size
        * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        @ [[random.uniform(0.85, 1.15), -slant], [0, 1]]
    )
    shift = random.normal(0, 1, (len(strokes) + 1, 2))  # where strokes meet, they still do
    paths = []
    for number, points in enumerate(strokes):
        points = np.array(points, dtype=float)
        moved = points + random.normal(0, 1.5, points.shape)
        moved[0], moved[-1] = points[0] + shift[number], points[-1] + shift[number + 1]
        along = np.cumsum([0, *np.hypot(*np.diff(moved, axis=0).T)])
        steps = np.linspace(0, along[-1], 60)
        path = make_interp_spline(along, moved, k=min(3, len(points) - 1))(steps) @ matrix.T
        paths.append(path + random.normal(0, jag, path.shape) * height / 100)
    pen *= random.uniform(0.9, 1.1)
    every = np.concatenate(paths)
    low, high = every.min(axis=0) - pen / 2, every.max(axis=0) + pen / 2
    place = random.uniform(0.35, 0.65, 2) if at is None else at
    origin = (canvas - (high - low)) * place - low
    image = Image.new("L", (2 * canvas[0], 2 * canvas[1]))
    draw = ImageDraw.Draw(image)
    for path in paths:
        fine = np.linspace(0, len(path) - 1, 240)
        for x, y in zip(*(np.interp(fine, range(len(path)), axis) for axis in path.T), strict=True):
            x, y = 2 * (x + origin[0]), 2 * (y + origin[1])
            draw.ellipse([x - pen, y - pen, x + pen, y + pen], fill=255)
    return np.asarray(image.resize(canvas, Image.Resampling.BOX)) / 255


def gray(values):
    """Brightness, 0 to 255, as an image."""
    return Image.fromarray(np.clip(values, 0, 255).round().astype(np.uint8))


def on_paper(cover, paper=250, pen=30):
    """Ink on a paper, each of one brightness or of one a pixel."""
    return gray(paper + (pen - paper) * cover)


def plain(**how):
    """A kind of picture: a digit drawn as told, on white paper."""
    return lambda digit, random: on_paper(ink(digit, random, **how))


# --- pens, papers, light and files ----------------------------------------------------------------


def chalk(digit, random):
    grain = random.uniform(0.4, 1, (400, 400))
    board = 45 + random.normal(0, 4, (400, 400))
    return on_paper(ink(digit, random, pen=18) * grain, board, 225)


def pencil(digit, random):
    grain = random.uniform(0.5, 1, (400, 400))
    return on_paper(ink(digit, random, pen=6) * grain, 245, 120)


def blue_ink(digit, random):
    return ImageOps.colorize(plain(pen=9)(digit, random), black="#2038a0", white="#f6f0dc")


def shadow(digit, random):
    """A soft shadow over one half of the paper."""
    y, x = np.mgrid[-1:1:400j, -1:1:400j]
    angle = random.uniform(0, 2 * np.pi)
    light = 1 / (1 + np.exp(-4 * (x * np.cos(angle) + y * np.sin(angle))))
    return gray((120 + 110 * light) * (1 - 0.75 * ink(digit, random)))


def photograph(digit, random):
    """Lit from one side, out of focus, with a camera's noise."""
    y, x = np.mgrid[-1:1:400j, -1:1:400j]
    light = 165 + 30 * random.uniform(-1, 1) * x + 25 * random.uniform(-1, 1) * y
    light -= 20 * (x * x + y * y)
    seen = gray(light * (1 - 0.65 * ink(digit, random))).filter(ImageFilter.GaussianBlur(2))
    return gray(np.asarray(seen) + random.normal(0, 9, (400, 400)))


def jpeg(digit, random):
    data = io.BytesIO()
    plain(pen=8)(digit, random).save(data, "JPEG", quality=12)
    return Image.open(data)


def transparent(digit, random):
    """A black pen on nothing."""
    layer = Image.new("RGBA", (400, 400), "black")
    layer.putalpha(gray(255 * ink(digit, random)))
    return layer


def in_a_corner(digit, random):
    corner = random.integers(0, 2, 2) * 0.96 + 0.02
    return on_paper(ink(digit, random, pen=4, height=50, canvas=(600, 400), at=corner))


def cropped(digit, random):
    cover = ink(digit, random, pen=20)
    rows, columns = np.flatnonzero(cover.any(axis=1)), np.flatnonzero(cover.any(axis=0))
    return on_paper(cover[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])


def dirty(digit, random):
    """With thirty specks, as a scanner's glass leaves them."""
    cover = ink(digit, random).copy()
    for x, y in random.integers(0, 397, (30, 2)):
        cover[y : y + random.integers(1, 4), x : x + random.integers(1, 4)] = 1
    return on_paper(cover)


# --- lines as dark as the ink ---------------------------------------------------------------------


def framed_at_the_rim(digit, random):
    cover = ink(digit, random, pen=random.uniform(8, 20)).copy()
    for side in range(4):  # each side as wide as it happens to be
        np.rot90(cover, side)[: random.integers(2, 14)] = 1
    return on_paper(cover)


def framed_inside(digit, random):
    """A box around the digit, and paper around the box."""
    cover = ink(digit, random, pen=random.uniform(8, 20), canvas=(320, 320))
    box, wide = Image.new("L", (500, 440)), int(random.integers(2, 9))
    left, top = random.integers(30, 70, 2).tolist()
    right, end = left + 320 + random.integers(0, 60), top + 320 + random.integers(-10, 20)
    ImageDraw.Draw(box).rectangle([left, top, right, end], outline=255, width=wide)
    box = np.asarray(box.rotate(random.uniform(-2, 2), Image.Resampling.BICUBIC)) / 255
    return on_paper(np.maximum(box, np.pad(cover, ((top, 120 - top), (left, 180 - left)))))


def lines(random, apart):
    """Lines from edge to edge of 400x400, so far apart and up to a degree aslant, 0 to 1."""
    y, x = np.mgrid[:400, :400]
    height = y + np.tan(np.radians(random.uniform(-1, 1))) * x + random.uniform(0, apart)
    return np.clip(random.uniform(1.5, 2.5) - np.abs(height % apart - apart / 2), 0, 1)


def ruled(digit, random):
    cover = ink(digit, random, pen=random.uniform(8, 16))
    return on_paper(np.maximum(cover, lines(random, random.uniform(35, 180))))


def squared(digit, random):
    cover, apart = ink(digit, random, pen=random.uniform(8, 16)), random.uniform(35, 180)
    return on_paper(np.maximum.reduce([cover, lines(random, apart), lines(random, apart).T]))


KINDS = {
    "hairline": plain(pen=2),
    "ballpoint": plain(pen=8),
    "marker": plain(pen=26),
    "broad marker": plain(pen=40),
    "mouse": plain(pen=6, jag=0.8),
    "chalk": chalk,
    "pencil": pencil,
    "blue ink": blue_ink,
    "white on black": lambda digit, random: on_paper(ink(digit, random), 0, 255),
    "gray paper": lambda digit, random: on_paper(ink(digit, random), 140, 80),
    "shadow": shadow,
    "photograph": photograph,
    "jpeg": jpeg,
    "transparent": transparent,
    "tiny": lambda digit, random: plain()(digit, random).resize((24, 24), Image.Resampling.BOX),
    "huge": lambda digit, random: plain()(digit, random).resize((3000, 3000)),
    "in a corner": in_a_corner,
    "turned": plain(turn=15),
    "cropped": cropped,
    "dirty": dirty,
    "framed at the rim": framed_at_the_rim,
    "framed inside": framed_inside,
    "ruled": ruled,
    "squared": squared,
}  # fmt: skip


def pictures(kind, seed):
    """Twenty pictures of a kind, each of the ten digits twice: (digit, image) pairs."""
    for number in range(20):
        random = np.random.default_rng([seed, list(KINDS).index(kind), number])
        yield number % 10, KINDS[kind](number % 10, random)


if __name__ == "__main__":
    for kind in KINDS:
        for number, (digit, image) in enumerate(pictures(kind, int(sys.argv[2]))):
            image.save(Path(sys.argv[1]) / f"{kind.replace(' ', '-')}-{digit}-{number // 10}.png")
