"""Judges a picture against what was asked, by measurement alone.

It is tested on right pictures with right captions and on right pictures with wrong captions.
"""

from dataclasses import dataclass

import numpy as np

from training.backdrops import read_backdrop
from training.palette import PALETTE, nearest_colour
from training.regions import Floats, Mask, Region, components, eroded, filled, region_of
from training.render import Picture
from training.request import PLACES, Request, Wanted
from training.scene import Scene, Thing

MIN_FIT = 0.72
MIN_FIT_STYLED = 0.6  # blurred and blocky outlines fit less well
CONTRAST = 0.16  # RGB distance that separates a thing from what is behind it
NEAR_RGB = 0.12  # a reference's own colour, matched this closely, is right whatever its name


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which attributes are right, and what was seen (shape, colour) for confusion tables."""

    backdrop: bool
    count: bool
    shape: bool
    colour: bool
    position: bool
    style: bool
    seen: tuple[tuple[str, str], ...] = ()

    @property
    def right(self) -> bool:
        """All of them."""
        parts = (self.backdrop, self.count, self.shape, self.colour, self.position, self.style)
        return all(parts)


def judge(picture: Picture, request: Request, truth: Scene) -> Verdict:
    """Compare a picture (64, 64, 3) with the scene that the request means."""
    floats = picture.astype(np.float32) / 255
    behind_ok, behind = read_backdrop(floats, truth.backdrop)
    regions = _regions(floats, behind, nested=request.relation == "inside")
    style_ok = bool(regions) and _style_ok(floats, regions[0].mask, truth)
    if truth.style == "outlined":
        regions = [_without_contour(region, floats) for region in regions]
    seen = tuple((region.shape, nearest_colour(region.rgb)) for region in regions)
    if len(regions) != len(truth.things):
        return Verdict(behind_ok, False, False, False, False, False, seen)
    pairs = _matched(regions, truth.things)
    return Verdict(
        backdrop=behind_ok,
        count=True,
        shape=_shapes_ok(pairs, request),
        colour=_colours_ok(pairs, request),
        position=_positions_ok(pairs, request),
        style=style_ok,
        seen=tuple((r.shape, nearest_colour(r.rgb)) for r, _ in pairs),
    )


def _regions(floats: Floats, behind: Floats, *, nested: bool) -> list[Region]:
    apart: Mask = np.sqrt(((floats - behind) ** 2).sum(-1)) > CONTRAST * 3**0.5
    masks = components(apart)
    if not nested or len(masks) != 1:
        return [region_of(mask, floats) for mask in masks]
    hull = filled(masks[0])
    inner_hull = eroded(eroded(eroded(hull)))
    rim = hull & ~inner_hull & eroded(hull)
    rgb = np.median(floats[rim], axis=0)
    inner = inner_hull & (np.sqrt(((floats - rgb) ** 2).sum(-1)) > CONTRAST * 3**0.5)
    outer = region_of(hull, np.broadcast_to(rgb, floats.shape).astype(np.float32))
    return [outer, *(region_of(mask, floats) for mask in components(inner))]


def _without_contour(region: Region, floats: Floats) -> Region:
    """The region less its black contour."""
    fill = ((floats - region.rgb) ** 2).sum(-1) < ((floats - PALETTE["black"]) ** 2).sum(-1)
    parts = components(region.mask & fill)
    return region_of(parts[0], floats) if parts else region


def _same_colour(region: Region, thing: Thing) -> bool:
    close = float(np.abs(region.rgb - thing.rgb).max()) < NEAR_RGB
    return nearest_colour(region.rgb) == thing.colour or close


def _matched(regions: list[Region], things: tuple[Thing, ...]) -> list[tuple[Region, Thing]]:
    """Each thing with the region most like it, in the order of the things."""
    left = list(regions)
    pairs = []
    for thing in things:
        best = max(
            left,
            key=lambda r: (
                2 * (r.shape == thing.shape)
                + 2 * _same_colour(r, thing)
                - 0.01 * (abs(r.x_px - thing.x_px) + abs(r.y_px - thing.y_px))
            ),
        )
        left.remove(best)
        pairs.append((best, thing))
    return pairs


def _shapes_ok(pairs: list[tuple[Region, Thing]], request: Request) -> bool:
    """Clean outlines, and the ones asked for; any will do where the prompt leaves it open."""
    is_open = request.things[0].shape.is_open
    least = MIN_FIT if request.style == "flat" else MIN_FIT_STYLED
    return all(r.fit >= least and (is_open or r.shape == t.shape) for r, t in pairs)


def _colours_ok(pairs: list[tuple[Region, Thing]], request: Request) -> bool:
    return request.things[0].colour.is_open or all(_same_colour(r, t) for r, t in pairs)


def _positions_ok(pairs: list[tuple[Region, Thing]], request: Request) -> bool:
    wanted = request.things[0]
    if wanted.shape.reference is not None:  # the reference's outline, where the reference has it
        region, thing = pairs[0]
        apart = max(abs(region.x_px - thing.x_px), abs(region.y_px - thing.y_px))
        return apart <= 6 and 0.75 <= region.radius_px / thing.radius_px <= 1.33
    if len(request.things) == 2:
        return _relation_ok(pairs, request)
    return wanted.count > 1 or _place_ok(pairs[0][0], wanted)


def _place_ok(region: Region, wanted: Wanted) -> bool:
    if wanted.size == "small" and region.radius_px > 13.5:
        return False
    if wanted.size == "large" and region.radius_px < 17.5:
        return False
    if wanted.place is None:
        return True
    for side, offset in zip(PLACES[wanted.place], (region.x_px - 32, region.y_px - 32), strict=True):
        if abs(offset) > 7 if side == 0 else offset * side < 5:
            return False
    return True


def _relation_ok(pairs: list[tuple[Region, Thing]], request: Request) -> bool:
    (one, _), (other, _) = pairs
    dx, dy = one.x_px - other.x_px, one.y_px - other.y_px
    if request.relation == "inside":  # the enclosing thing is drawn first
        return one.radius_px > 1.4 * other.radius_px
    checks = {"left": dx < -8, "right": dx > 8, "above": dy < -8, "below": dy > 8}
    sizes = [wanted.size for wanted in request.things]
    if sizes[0] and (one.radius_px > other.radius_px) != (sizes[0] == "large"):
        return False
    return checks[request.relation] if request.relation else max(abs(dx), abs(dy)) > 8


def _style_ok(floats: Floats, mask: Mask, truth: Scene) -> bool:
    if truth.style == "flat":
        return True
    rim = mask & ~eroded(mask)
    if truth.style == "outlined":
        band = floats[eroded(mask) & ~eroded(eroded(mask))]
        return float(np.abs(np.median(band, axis=0) - PALETTE["black"]).max()) < 0.35
    steps = np.abs(np.diff(floats.max(-1) + floats.min(-1) + floats[..., 0], axis=1))
    if truth.style == "soft":  # a hard edge crosses most of its contrast within one pixel
        return float(steps.max()) < 0.55 * float(np.ptp(floats.max(-1) + floats.min(-1) + floats[..., 0]))
    blocks = floats.reshape(16, 4, 16, 4, 3).std((1, 3)).max(-1)
    return bool(rim.any()) and float((blocks > 0.12).mean()) < 0.08
