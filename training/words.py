"""The vocabulary of the prompts: synonyms, and words that mean nothing to the model."""

SHAPE_WORDS: dict[str, tuple[str, ...]] = {
    "circle": ("circle", "circle", "circle", "disc", "disk", "dot", "ball"),
    "square": ("square", "square", "square", "box", "block"),
    "triangle": ("triangle", "triangle", "triangle", "pyramid"),
    "star": ("star", "star", "star", "pentagram"),
    "ring": ("ring", "ring", "ring", "donut", "hoop"),
    "cross": ("cross", "cross", "cross", "plus", "plus sign"),
    "heart": ("heart", "heart", "heart", "love heart"),
}
PLURALS: dict[str, tuple[str, ...]] = {
    "circle": ("circles", "discs", "dots", "balls"),
    "square": ("squares", "boxes"),
    "triangle": ("triangles",),
    "star": ("stars",),
    "ring": ("rings", "donuts"),
    "cross": ("crosses", "plus signs"),
    "heart": ("hearts",),
}
COLOUR_WORDS: dict[str, tuple[str, ...]] = {
    "red": ("red", "red", "red", "scarlet", "crimson"),
    "orange": ("orange", "orange", "tangerine"),
    "yellow": ("yellow", "yellow", "lemon"),
    "green": ("green", "green", "green", "emerald"),
    "cyan": ("cyan", "cyan", "turquoise", "teal"),
    "blue": ("blue", "blue", "blue", "navy"),
    "purple": ("purple", "purple", "violet"),
    "pink": ("pink", "pink", "rose"),
    "brown": ("brown", "brown", "chocolate"),
    "black": ("black", "black", "jet black"),
    "gray": ("gray", "grey", "silver"),
    "white": ("white", "white", "snow white"),
}
SIZE_WORDS = {"small": ("small", "little", "tiny"), "large": ("big", "large", "huge")}
COUNT_WORDS = {2: ("two", "2", "a pair of"), 3: ("three", "3"), 4: ("four", "4")}
ANY_SHAPE = ("shape", "object", "thing", "figure")
PLACE_WORDS: dict[str, tuple[str, ...]] = {
    "left": ("on the left", "at the left", "on the left side", "to the left"),
    "right": ("on the right", "at the right", "on the right side", "to the right"),
    "top": ("at the top", "on top", "in the upper part", "near the top"),
    "bottom": ("at the bottom", "in the lower part", "near the bottom"),
    "centre": ("in the centre", "in the middle", "at the center", "centered"),
    "top left": ("in the top left corner", "at the top left", "in the upper left"),
    "top right": ("in the top right corner", "at the top right", "in the upper right"),
    "bottom left": ("in the bottom left corner", "at the bottom left", "in the lower left"),
    "bottom right": ("in the bottom right corner", "at the bottom right", "in the lower right"),
}
RELATION_WORDS: dict[str | None, tuple[str, ...]] = {
    "left": ("to the left of", "left of", "on the left side of", "on the left of"),
    "right": ("to the right of", "right of", "on the right side of", "on the right of"),
    "above": ("above", "over", "on top of"),
    "below": ("below", "under", "beneath", "underneath"),
    "inside": ("inside", "in", "within", "inside of"),
    None: ("and", "and", "next to", "beside", "with", "plus also"),
}
STYLE_WORDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # before, after the noun
    "outlined": (("outlined", "contoured"), ("with an outline", "with a black outline")),
    "soft": (("soft", "blurry", "fuzzy", "blurred"), ("with soft edges", "out of focus")),
    "pixel": (("pixelated", "blocky", "pixel art"), ("in pixel art style", "as pixel art")),
}
REFERENCE_WORDS = (
    "reference",
    "reference",
    "reference image",
    "image",
    "picture",
    "photo",
    "input image",
)
ORDINALS = (("first", "second"), ("first", "second"), ("1", "2"), ("one", "two"))
OPENINGS = (
    "a picture of",
    "an image of",
    "draw",
    "paint",
    "show me",
    "please draw",
    "i want",
    "a photo of",
    "an illustration of",
    "generate",
    "render",
    "make",
    "create",
    "a drawing of",
    "there is",
    "i would like to see",
    "give me",
)
CLOSINGS = (
    "high quality",
    "4k",
    "simple",
    "minimalist",
    "beautiful",
    "detailed",
    "please",
    "digital art",
    "very nice",
    "flat design",
    "clean",
    "hd",
    "sharp",
    "vector art",
    "masterpiece",
    "best quality",
)
_NOISE = """city night street dog cat mountain river ocean tree forest flower car house castle robot
    dragon space planet sun moon sky cloud rain snow winter summer garden bird fish horse man woman
    child king queen portrait landscape futuristic ancient neon lights bridge train airplane boat
    ship island desert storm fire water stone wood metal glass cozy dark bright dramatic cinematic
    realistic fantasy cyberpunk vintage modern abstract oil watercolor sketch photography studio
    light lighting sunset sunrise morning evening happy sad running sitting standing flying eating
    wearing holding looking through into from by near at with and of for food coffee table chair
    window door kitchen room office computer book music guitar football people crowd market village
    tower church road hill lake beach wave wolf bear lion tiger fox rabbit butterfly detailed epic
    style colorful elegant mysterious magic wizard knight warrior astronaut alien monster ghost"""
NOISE_WORDS = tuple(_NOISE.split())
REST = (
    "a an the of on in to from is that has colored coloured color colour hue tone same as like"
    " using use take with matching painted filled background backdrop canvas behind striped stripes"
    " checkered checkerboard checked chequered pattern gradient fading fade against shaped form"
    " outline silhouette put place keep but change turn version recolor recolour it its this these"
    " containing where which solid plain two-tone copy placed shown given"
)
