"""Rasterise the sprites of the scenes from the Fluent Emoji set into ``tools/training/sprites.png``.

The emoji are Microsoft's Fluent Emoji (flat), MIT licence (``tools/training/SPRITES-LICENSE``), as packed in the npm
package ``@iconify-json/fluent-emoji-flat``. Run once; the sheet is committed, so that training needs neither npm nor
resvg::

    npm pack @iconify-json/fluent-emoji-flat && tar xzf iconify-json-fluent-emoji-flat-*.tgz
    python tools/training/sprites.py package/icons.json          # needs: pip install resvg-py pillow
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import resvg_py
from PIL import Image

from rollflow.models.scenes.grammar import KINDS

SIDE = 96
ICONS = {
    "airplane": "airplane",
    "apple": "red-apple",
    "balloon": "balloon",
    "boat": "sailboat",
    "camel": "two-hump-camel",
    "car": "automobile",
    "cat": "cat-face",
    "dog": "dog-face",
    "donut": "doughnut",
    "fish": "tropical-fish",
    "flower": "tulip",
    "heart": "red-heart",
    "house": "house",
    "mushroom": "mushroom",
    "star": "star",
    "tree": "evergreen-tree",
}


def main(icons_json: str) -> None:
    icons = json.loads(Path(icons_json).read_text())["icons"]
    sheet = Image.new("RGBA", (SIDE * len(KINDS), SIDE))
    for column, kind in enumerate(KINDS):
        body = icons[ICONS[kind]]["body"]
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32" width="{SIDE}" height="{SIDE}">{body}</svg>'
        sprite = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg)))).convert("RGBA")
        box = sprite.getbbox()
        assert box is not None, f"{kind} rasterised to nothing"
        sprite = sprite.crop(box)
        scale = SIDE / max(sprite.size)
        sprite = sprite.resize((round(sprite.width * scale), round(sprite.height * scale)), Image.Resampling.LANCZOS)
        sheet.paste(sprite, (column * SIDE + (SIDE - sprite.width) // 2, (SIDE - sprite.height) // 2))
    sheet.save(Path(__file__).with_name("sprites.png"), optimize=True)


if __name__ == "__main__":
    main(sys.argv[1])
