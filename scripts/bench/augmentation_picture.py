"""Draw slices of the phantom as they are and as each transform of a batch makes them, the labels laid over.

    python scripts/bench/augmentation_picture.py docs/images/augmentation.png

One row a slice; every transform with a number that is easy to see, larger than in training. What is mirrored left and
right has the labels of paired structures exchanged: a kidney on the patient's left has the colour of the left kidney.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from medseg import LabelMap
from medseg.catalogue import contralateral_name
from medseg.data.phantom import PhantomSpec, make_body
from medseg.report.overlays import class_colors, gray, overlay
from medseg.transforms.batch import Draws, RandAugmentd, augment_batch

COLUMNS: dict[str, dict[str, float]] = {
    "as it is": {},
    "rotate, scale, shift": {"angle": 0.3, "shift_i": 8, "shift_j": -6, "scale_i": 1.15, "scale_j": 0.9},
    "mirror, exchange pairs": {"mirror_i": 1},
    "gamma": {"gamma": 2.0},
    "contrast": {"contrast": 0.5},
    "noise": {"std": 0.08, "noise_seed": 1},
    "blur": {"sigma_i": 1.5, "sigma_j": 1.5},
    "low resolution": {"zoom": 0.3},
}
WIDTH, HEAD = 152, 20


def slices() -> tuple[torch.Tensor, torch.Tensor, LabelMap]:
    """Two slices of the phantom's trunk, `(2, 1, I, J)`, and labels of the same shape."""
    body = make_body(PhantomSpec(seed=3, size=(136, 96), spacing=(3.0, 3.0, 5.0), region="trunk"), 0)
    paired = [name for name in sorted(body.masks) if (contralateral_name(name) or name) in body.masks]
    labels = LabelMap(paired)
    label = np.zeros(body.hu.shape, np.uint8)
    for name in labels.overlap_priority():
        label[body.masks[name]] = labels.index(name)
    image = np.interp(body.hu, [-1000, -200, 300, 1200], [0, 0.2, 0.8, 1]).astype(np.float32)
    depth = image.shape[2]
    printable = [round(depth * part) for part in (0.52, 0.8)]
    stacks = [np.moveaxis(volume[..., printable], 2, 0)[:, None] for volume in (image, label)]
    return torch.from_numpy(stacks[0].copy()), torch.from_numpy(stacks[1].copy()), labels


def picture() -> Image.Image:
    """The sheet."""
    images, truth, labels = slices()
    mirror = RandAugmentd(mirror={"prob": 1.0, "axes": [0]}, labels=labels)
    rows: list[list[Image.Image]] = [[] for _ in images]
    colours = class_colors(labels)
    for numbers in COLUMNS.values():
        fields = {name: np.full(len(images), numbers.get(name, np.nan)) for name in Draws._fields}
        found, labelled = augment_batch(images, truth, Draws(**fields), mirror.contralaterals)
        for row, image, label in zip(rows, found, labelled, strict=True):
            plain = gray(image[0].numpy(), (0.0, 0.9))
            tile = np.concatenate([plain, overlay(plain, label[0].numpy(), colours, 0.55, outlines=False)])
            size = (WIDTH, round(WIDTH * tile.shape[0] / tile.shape[1]))
            row.append(Image.fromarray(tile).resize(size, Image.Resampling.BILINEAR))
    height = rows[0][0].height
    sheet = Image.new("RGB", ((WIDTH + 4) * len(COLUMNS), HEAD + (height + 4) * len(rows)), (18, 18, 20))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for column, name in enumerate(COLUMNS):
        draw.text(((WIDTH + 4) * column + 4, 3), name, (226, 226, 230), font=font)
        for number, row in enumerate(rows):
            sheet.paste(row[column], ((WIDTH + 4) * column, HEAD + (height + 4) * number))
    return sheet


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    picture().quantize(96, dither=Image.Dither.NONE).save(options.output, optimize=True)
    print(f"Written to {options.output}, {options.output.stat().st_size // 1024} kB")
