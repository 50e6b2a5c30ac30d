"""Makes emoji.ttf, a colour font of squares: `python tests/data/make_emoji_font.py` (fonttools).

Its bitmaps are 34 x 32 pixels and it says that they are 109 pixels to the em, as Noto Color Emoji
does of its own. Each is a square of 32 pixels in one colour, the 34 columns being its advance.
"""

import io
from pathlib import Path

from fontTools.feaLib.builder import addOpenTypeFeaturesFromString
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTFont, newTable
from fontTools.ttLib.tables import E_B_L_C_ as locations
from fontTools.ttLib.tables.BitmapGlyphMetrics import SmallGlyphMetrics
from fontTools.ttLib.tables.C_B_D_T_ import cbdt_bitmap_format_17
from PIL import Image

WIDTH, HEIGHT, STRIKE = 34, 32, 109
CHARACTERS = {
    "face": 0x1F600,
    "man": 0x1F468,
    "woman": 0x1F469,
    "d": 0x1F1E9,
    "e": 0x1F1EA,
    "hash": 0x23,
    "keycap": 0x20E3,
    "emoji_style": 0xFE0F,
    "joiner": 0x200D,
    "blank": 0x2B50,  # it has no image
}
SEQUENCES = {"couple": "man joiner woman", "flag": "d e", "hash_key": "hash emoji_style keycap"}
COLOURS = {
    ".notdef": "pink",
    "face": "blue",
    "man": "red",
    "woman": "red",  # a duplicate
    "d": "gray",
    "e": "silver",
    "hash": "black",
    "keycap": "black",
    "couple": "purple",
    "flag": "gold",
    "hash_key": "teal",
}


def outlines() -> FontBuilder:
    """All of a font but its bitmaps; the glyphs have no outlines."""
    names = [".notdef", *CHARACTERS, *SEQUENCES]
    builder = FontBuilder(unitsPerEm=10 * STRIKE)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({code: name for name, code in CHARACTERS.items()})
    builder.setupGlyf({name: TTGlyphPen(None).glyph() for name in names})
    widths = {name: 0 if name in ("emoji_style", "joiner") else 10 * WIDTH for name in names}
    builder.setupHorizontalMetrics({name: (width, 0) for name, width in widths.items()})
    builder.setupHorizontalHeader(ascent=10 * HEIGHT, descent=0)
    builder.setupOS2()
    builder.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    builder.setupPost()
    rules = [f"sub {parts} by {name};" for name, parts in SEQUENCES.items()]
    addOpenTypeFeaturesFromString(builder.font, f"feature ccmp {{ {' '.join(rules)} }} ccmp;")
    return builder


def bitmap(font: TTFont, colour: str) -> cbdt_bitmap_format_17:
    """A square as PNG, with its metrics."""
    image = Image.new("RGBA", (WIDTH, HEIGHT))
    image.paste(colour, (1, 0, WIDTH - 1, HEIGHT))
    png = io.BytesIO()
    image.save(png, "PNG", optimize=True)
    glyph = cbdt_bitmap_format_17(b"", font)
    glyph.metrics = SmallGlyphMetrics()
    glyph.metrics.height, glyph.metrics.width = HEIGHT, WIDTH
    glyph.metrics.BearingX, glyph.metrics.BearingY, glyph.metrics.Advance = 0, HEIGHT, WIDTH
    glyph.imageData = png.getvalue()
    return glyph


def line_metrics() -> locations.SbitLineMetrics:
    """The strike's metrics, of which only these matter."""
    metrics = locations.SbitLineMetrics()
    names = "caretSlopeNumerator caretSlopeDenominator caretOffset minOriginSB minAdvanceSB "
    for name in (names + "maxBeforeBL minAfterBL pad1 pad2").split():
        setattr(metrics, name, 0)
    metrics.ascender, metrics.descender, metrics.widthMax = HEIGHT, 0, WIDTH
    return metrics


def runs(names: list[str]) -> list[list[str]]:
    """Names in groups whose glyphs follow each other: one index each."""
    order = [".notdef", *CHARACTERS, *SEQUENCES]
    groups: list[list[str]] = []
    for name in names:
        if groups and order.index(groups[-1][-1]) + 1 == order.index(name):
            groups[-1].append(name)
        else:
            groups.append([name])
    return groups


def add_bitmaps(font: TTFont) -> None:
    """The tables CBDT (the images) and CBLC (where they are)."""
    strike = locations.Strike()
    size = strike.bitmapSizeTable = locations.BitmapSizeTable()
    size.hori, size.vert = line_metrics(), line_metrics()
    size.ppemX = size.ppemY = STRIKE
    size.bitDepth, size.flags, size.colorRef = 32, 1, 0
    for names in runs(list(COLOURS)):
        index = locations.eblc_index_sub_table_1(b"", font)
        index.names, index.indexFormat, index.imageFormat = names, 1, 17
        strike.indexSubTables.append(index)
    places, images = newTable("CBLC"), newTable("CBDT")
    places.version = images.version = 3.0
    places.strikes = [strike]
    images.strikeData = [{name: bitmap(font, colour) for name, colour in COLOURS.items()}]
    font["CBLC"], font["CBDT"] = places, images


if __name__ == "__main__":
    font = outlines().font
    add_bitmaps(font)
    for outline in ("glyf", "loca"):  # bitmaps alone, as in Noto Color Emoji
        del font[outline]
    font["head"].created = font["head"].modified = 0
    font.recalcTimestamp = False
    font.save(Path(__file__).with_name("emoji.ttf"))
