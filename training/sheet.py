"""Draws the sample sheet: `python -m training.sheet` writes docs/tiny-klein.png."""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from training.export import SHIPPED, load_pipeline, paint
from training.photo import Reference, make_reference

CELL_PX = 128
GAP_PX = 12
TEXT_PX = 34
COLUMNS = 5
# Prompts, each with the seeds of the references that it is shown.
SAMPLES: tuple[tuple[str, tuple[int, ...]], ...] = (
    ("a red circle on a white background", ()),
    ("a big yellow star on navy", ()),
    ("green background with a white heart", ()),
    ("a small purple ring in the top left corner", ()),
    ("a cyan cross at the bottom, on black", ()),
    ("a red square left of a blue circle", ()),
    ("an orange triangle above a purple square", ()),
    ("a pink heart inside a black square", ()),
    ("a green star and a brown ring on yellow", ()),
    ("three blue circles", ()),
    ("a star in the colour of the reference", (7,)),
    ("a square in the colour of the reference on pink", (18,)),
    ("the shape of the reference in red", (37,)),
    ("the reference on a green background", (39,)),
    ("the shape of the first reference in the colour of the second", (30, 34)),
)


def _reference(seed: int) -> Reference:
    return make_reference(np.random.default_rng((seed, 2024)), for_shape=True)


def _wrapped(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: int) -> str:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return "\n".join(lines)


def draw_sheet(model: Path) -> Image.Image:
    """Prompts with what was painted; references, if any, at a third of the size beside it."""
    pipe = load_pipeline(model)
    font = ImageFont.load_default(11)
    small = CELL_PX * 3 // 8
    wide, high = CELL_PX + small + GAP_PX, CELL_PX + TEXT_PX + GAP_PX
    rows = -(-len(SAMPLES) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * wide + GAP_PX, rows * high + GAP_PX), (235, 235, 238))
    pen = ImageDraw.Draw(sheet)
    for index, (prompt, seeds) in enumerate(SAMPLES):
        x, y = GAP_PX + index % COLUMNS * wide, GAP_PX + index // COLUMNS * high
        references = [Image.fromarray(_reference(seed).picture) for seed in seeds]
        picture = paint(pipe, prompt, references, seed=index)
        sheet.paste(picture.resize((CELL_PX, CELL_PX), Image.Resampling.LANCZOS), (x, y))
        for rank, reference in enumerate(references):
            spot = (x + CELL_PX + 4, y + rank * (small + 4))
            sheet.paste(reference.resize((small - 6, small - 6), Image.Resampling.LANCZOS), spot)
        text = _wrapped(prompt, font, CELL_PX + small - 4)
        pen.multiline_text((x, y + CELL_PX + 3), text, (30, 30, 30), font, spacing=2)
    return sheet


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Draw the sample sheet of tiny-klein.")
    parser.add_argument("--model", type=Path, default=SHIPPED)
    parser.add_argument("--out", type=Path, default=Path("docs/tiny-klein.png"))
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    draw_sheet(args.model).save(args.out, optimize=True)


if __name__ == "__main__":
    main()
