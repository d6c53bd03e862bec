"""Pictures of the data set, made to look like photographs of clothes after their conversion.

In a photograph an item lies on a floor or hangs before a wall. It is turned and seen at an angle, its sleeves or legs
are spread, and shoes come as a pair that is seen from above. Its outline lacks pieces and includes pieces of the
background. Light falls unevenly, and the item may have stripes or a print. The data set's pictures show none of that. A
network's weights for photographs are trained on what ``make`` returns. Real photographs only serve to measure
(``bench/photographs.py``).

Places are those of ``torch.nn.functional.grid_sample``: -1 to 1 from left to right and from top to bottom. The numbers
below were chosen by looking at the made pictures beside converted photographs.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F  # noqa: N812 (the field's usual name)
from torch import Tensor

# Indices of the data set's labels.
_TOPS, _TROUSERS, _SHOES = (0, 2, 3, 4, 6), (1,), (5, 7, 9)
# Levels up to this one are the data set's background.
_BACKGROUND = 12
# Pictures made at once, so that the tensors fit into the processor's cache.
_CHUNK = 500

# Turns in degrees: a standard deviation for all, and for a few up to half of _ANY_TURN_DEG to either side. More shoes
# are turned than other clothes, because they lie in any direction.
_TURN_DEG, _TURNED_SHARE, _TURNED_SHOES_SHARE, _ANY_TURN_DEG = 8.0, 0.06, 0.4, 240.0
# Standard deviations of width (logarithm), shear and perspective; clothes that lie flat are wider than worn ones.
_WIDTH, _FLAT_WIDTH, _SHEAR, _PERSPECTIVE = 0.13, 0.15, 0.05, (0.06, 0.12)
# Share of items with spread sleeves or legs, and the ranges of their angles in degrees.
_SPREAD_SHARE, _SLEEVES_DEG, _LEGS_DEG = 0.7, (-8.0, 75.0), (-2.0, 14.0)
_PAIR_SHARE = 0.7
# Share of shoes seen from above, and the ranges of half their width, with half their length 1, and of where the line of
# their tops runs: 0 is the middle, 1 the sole.
_ABOVE_SHARE, _ABOVE_WIDTH, _ABOVE_LEAN = 0.6, (0.32, 0.45), (-0.6, 0.6)
_WAVES, _SHIFT = 0.03, 0.02
# The largest extent of a scene around an item; pictures are cut out of it.
_SCENE = 2.2
# Share of outlines that lack pieces, and of those that include pieces of the background.
_DAMAGED_SHARE = 0.2
_INVERTED_SHARE, _TEXTURE_SHARE, _STRIPES_SHARE, _PRINT_SHARE = 0.3, 0.2, 0.2, 0.25
# An item's mean level is at least the first and below the sum of both; the deviation within it is mostly about the
# third.
_DARKEST, _LEVELS, _CONTRAST = 0.15, 0.83, 0.13


def make(pictures: Tensor, targets: Tensor) -> Tensor:
    """Make one picture of each of the data set's, with torch's own random numbers.

    Args:
        pictures: uint8 ``[N, H, W]``, bright items on black, with H = W.
        targets: indices of the labels, int64 ``[N]``.

    Returns:
        uint8 ``[N, H, W]``, like conversions of photographs.
    """
    chunks = zip(torch.split(pictures, _CHUNK), torch.split(targets, _CHUNK), strict=True)
    return torch.cat([_made(chunk, labels) for chunk, labels in chunks])


def _made(pictures: Tensor, targets: Tensor) -> Tensor:
    outlines = _outlines(pictures).float()
    items = pictures / 255 * outlines
    edge = pictures.shape[-1]
    above = torch.nonzero(_chance(len(pictures), _ABOVE_SHARE) * _is_in(targets, _SHOES))[:, 0]
    items[above], outlines[above] = from_above(items[above], outlines[above])
    scene = _Scene.draw(outlines, targets)
    places = scene.around_items(outlines)
    sources, visible = scene.sources(places)
    waves = _WAVES * _smooth_noise(len(pictures), 4, edge, channels=2)
    both = torch.stack([items, outlines], 1)
    items, inside = (_sampled(both, sources + waves) * visible[:, None]).unbind(1)
    items = torch.where(inside > 0.05, items / inside.clamp(min=0.05), torch.zeros(()))
    items, outlines = _damaged(items, inside)
    return (_lit(_printed(items, outlines), outlines) * 255).round().to(torch.uint8)


# --- Random numbers and places ---


def _each(values: Tensor) -> Tensor:
    """One value per picture, ``[N]``, for all its pixels: ``[N, 1, 1]``."""
    return values[:, None, None]


def _chance(count: int, share: float) -> Tensor:
    """For each picture 1 with a probability of ``share``, else 0; float32 ``[N]``."""
    return (torch.rand(count) < share).float()


def _between(count: int, low: float, high: float) -> Tensor:
    return low + torch.rand(count) * (high - low)


def _smooth_noise(count: int, points: int, edge: int, channels: int = 1) -> Tensor:
    """Normal values at ``points`` x ``points`` places, smooth in between; ``[N, H, W, channels]``."""
    coarse = torch.randn(count, channels, points, points)
    return F.interpolate(coarse, size=(edge, edge), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)


def _noise(count: int, points: int, edge: int) -> Tensor:
    return _smooth_noise(count, points, edge)[..., 0]


def _places(edge: int) -> Tensor:
    """The places of all pixels, ``[H, W, 2]``, x before y."""
    ticks = torch.linspace(-1, 1, edge)
    y, x = torch.meshgrid(ticks, ticks, indexing="ij")
    return torch.stack([x, y], -1)


def _turned(places: Tensor, angles: Tensor) -> Tensor:
    """Places ``[N, H, W, 2]`` turned about the center by angles ``[N]`` in radians."""
    cos, sin = _each(angles.cos()), _each(angles.sin())
    x, y = places.unbind(-1)
    return torch.stack([x * cos - y * sin, x * sin + y * cos], -1)


def _sampled(pictures: Tensor, places: Tensor) -> Tensor:
    return F.grid_sample(pictures, places, align_corners=True)


def _is_in(targets: Tensor, labels: tuple[int, ...]) -> Tensor:
    return torch.isin(targets, torch.tensor(labels))


# --- The item in its scene ---


def _outlines(pictures: Tensor) -> Tensor:
    """Where the items are, bool ``[N, H, W]``: their pixels, and dark ones that these enclose."""
    bright = pictures > _BACKGROUND
    enclosed = torch.ones_like(bright)
    for axis in (1, 2):
        enclosed &= (bright.cumsum(axis) > 0) & (bright.flip(axis).cumsum(axis).flip(axis) > 0)
    mostly_bright = F.avg_pool2d(bright.float()[:, None], 5, 1, 2)[:, 0] > 0.6
    return bright | (enclosed & ((pictures > 0) | mostly_bright))


def from_above(items: Tensor, outlines: Tensor) -> tuple[Tensor, Tensor]:
    """Make shoes as seen from above of shoes seen from the side, toes to the left.

    The line of a shoe's top, from instep to heel, becomes the line along its middle, and its sole becomes its outline.
    Between them both sides show what the one side shows. The insole is seen through the opening and between straps.

    Args:
        items: float32 ``[N, H, W]``, 0 to 1, with H = W.
        outlines: 1 where the items are, 0 elsewhere, float32 ``[N, H, W]``.

    Returns:
        Items and outlines like the arguments.
    """
    count, edge = items.shape[:2]
    x, y = _places(edge).expand(count, -1, -1, -1).unbind(-1)
    is_item = outlines > 0.5
    top = torch.where(is_item, y, torch.ones(())).amin(1, keepdim=True)
    bottom = torch.where(is_item, y, -torch.ones(())).amax(1, keepdim=True)
    # Round ends; the forefoot is wider than the heel.
    half = _each(_between(count, *_ABOVE_WIDTH)) * (1 - 0.15 * x) * (1 - x.abs() ** 4).sqrt()
    middle = half * _each(_between(count, *_ABOVE_LEAN))
    toward_sole = torch.where(y > middle, (y - middle) / (half - middle), (middle - y) / (half + middle))
    source_y = top + toward_sole.nan_to_num().clamp(0, 1) * (bottom - top)
    values, covered = _sampled(torch.stack([items, outlines], 1), torch.stack([x, source_y], -1)).unbind(1)
    insole = (_mean(items, outlines) + 0.25 * torch.randn(count)).clamp(0.1, 1)
    center, length = _between(count, 0.3, 0.5), _between(count, 0.25, 0.5)
    squares = ((x - _each(center)) / _each(length)) ** 2 + ((y - middle) / (0.6 * half + 1e-3)) ** 2
    shows_insole = (squares < 1) | (covered < 0.5)
    inside = ((half - y.abs()) * (edge / 2)).clamp(0, 1)
    return torch.where(shows_insole, _each(insole), values) * inside, inside


@dataclasses.dataclass
class _Scene:
    """How the item of each picture lies in its scene; all tensors ``[N]`` unless noted.

    Attributes:
        turn: in radians.
        side: 1, or -1 for a mirrored item.
        width, shear, perspective: of the whole item; ``perspective`` is ``[N, 2]``.
        spread: angles of the left and right sleeve or leg in radians, ``[N, 2]``.
        hinge_x, hinge_y: where the right sleeve or leg is joined to the item.
        has_legs: sleeves turn from the hinge outward, legs also only below it.
        is_pair: whether the item is shown twice.
        pair_turn, pair_distance, pair_height: of both items of a pair.
        is_parallel: a pair's left item lies as the right one does, and is not its mirror image.
    """

    turn: Tensor
    side: Tensor
    width: Tensor
    shear: Tensor
    perspective: Tensor
    spread: Tensor
    hinge_x: Tensor
    hinge_y: Tensor
    has_legs: Tensor
    is_pair: Tensor
    pair_turn: Tensor
    pair_distance: Tensor
    pair_height: Tensor
    is_parallel: Tensor

    @classmethod
    def draw(cls, outlines: Tensor, targets: Tensor) -> _Scene:
        """Draw a scene for each outline, float32 ``[N, H, W]``, by its label."""
        count = len(outlines)
        x, y = _places(outlines.shape[-1]).unbind(-1)
        tops, legs, shoes = (_is_in(targets, labels) for labels in (_TOPS, _TROUSERS, _SHOES))
        half = torch.where(outlines > 0.5, x.abs(), torch.zeros(())).amax((1, 2))
        top = torch.where(outlines > 0.5, y, torch.ones(())).amin((1, 2))
        # Both sides are spread alike, though not equally.
        sides = torch.rand(count, 2)
        sides = (sides + sides.mean(1, keepdim=True)) / 2
        angles = torch.where(
            legs[:, None],
            _LEGS_DEG[0] + sides * (_LEGS_DEG[1] - _LEGS_DEG[0]),
            _SLEEVES_DEG[0] + sides * (_SLEEVES_DEG[1] - _SLEEVES_DEG[0]),
        )
        is_spread = _chance(count, _SPREAD_SHARE) * (tops | legs)
        is_turned = torch.where(shoes, _chance(count, _TURNED_SHOES_SHARE), _chance(count, _TURNED_SHARE))
        any_turn = is_turned * _between(count, -0.5, 0.5) * _ANY_TURN_DEG
        # Most pairs point up or down.
        pair_turn = (180 * _chance(count, 0.5) - 90) * _chance(count, 0.8) + 14 * torch.randn(count)
        return cls(
            turn=torch.deg2rad(_TURN_DEG * torch.randn(count) + any_turn),
            side=1 - 2 * _chance(count, 0.5),
            width=torch.exp(_WIDTH * torch.randn(count) + _FLAT_WIDTH * tops),
            shear=_SHEAR * torch.randn(count),
            perspective=torch.randn(count, 2) * torch.tensor(_PERSPECTIVE),
            spread=torch.deg2rad(angles * is_spread[:, None]),
            hinge_x=torch.where(legs, torch.zeros(()), half * _between(count, 0.5, 0.65)),
            hinge_y=top + torch.where(legs, 0.35, 0.2),
            has_legs=legs,
            is_pair=(_chance(count, _PAIR_SHARE) * shoes) > 0,
            pair_turn=torch.deg2rad(pair_turn),
            pair_distance=_between(count, 0.22, 0.45),
            pair_height=torch.exp(0.2 * torch.randn(count) + 0.15),
            is_parallel=_chance(count, 0.5) > 0,
        )

    def sources(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Where in the data set's picture each place of the scene, ``[N, H, W, 2]``, comes from.

        Returns:
            The source of each place, and whether it shows anything, bool ``[N, H, W]``.
        """
        places = _turned(places, -self.turn)
        depth = 1 - (places * self.perspective[:, None, None]).sum(-1, keepdim=True)
        x, y = (places / depth.clamp(min=0.3)).unbind(-1)
        x = x * _each(self.side / self.width) + _each(self.shear) * y
        single, visible = self._spread(x, y)
        is_pair = _each(self.is_pair)
        return torch.where(is_pair[..., None], self._pair(x, y), single), visible | is_pair

    def _spread(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The sources of an item with spread sleeves or legs; nothing is seen where one has left its place."""
        side = torch.where(x < 0, -1.0, 1.0)
        angles = torch.where(x < 0, _each(self.spread[:, 0]), _each(self.spread[:, 1]))
        across, down = x * side - _each(self.hinge_x), y - _each(self.hinge_y)
        is_fixed = (across < 0) | (_each(self.has_legs) & (down < 0))
        turned_across = across * angles.cos() - down * angles.sin()
        turned_down = across * angles.sin() + down * angles.cos()
        source_x = torch.where(is_fixed, across, turned_across) + _each(self.hinge_x)
        source_y = torch.where(is_fixed, down, turned_down) + _each(self.hinge_y)
        return torch.stack([source_x * side, source_y], -1), is_fixed | (turned_across >= 0)

    def _pair(self, x: Tensor, y: Tensor) -> Tensor:
        """The sources of a pair, each of 0.7 of the item's size."""
        is_shifted = _each(self.is_parallel) & (x < 0)
        distance = _each(self.pair_distance)
        own_x = torch.where(is_shifted, x + distance, x.abs() - distance)
        across, down = _turned(torch.stack([own_x, y], -1) / 0.7, -self.pair_turn).unbind(-1)
        return torch.stack([across, down / _each(self.pair_height)], -1)

    def around_items(self, outlines: Tensor) -> Tensor:
        """The places of pictures that just hold the items, as the conversion cuts them out; ``[N, H, W, 2]``."""
        count, edge = outlines.shape[:2]
        scene = _SCENE * _places(edge).expand(count, -1, -1, -1)
        sources, visible = self.sources(scene)
        inside = (_sampled(outlines[:, None], sources)[:, 0] * visible > 0.4)[..., None]
        low = torch.where(inside, scene, _SCENE).amin((1, 2))
        high = torch.where(inside, scene, -_SCENE).amax((1, 2))
        # A pixel more on each side, because the scene has coarse pixels; never less than nothing.
        half = ((high - low) / 2 + 1.2 / (edge - 1)).amax(1).clamp(min=0.2) * (
            1 + 2 * _SHIFT * torch.randn(count).abs()
        )
        center = (low + high) / 2 + _SHIFT * torch.randn(count, 2)
        return _places(edge) * half[:, None, None, None] + center[:, None, None]


# --- Outline, light and print ---


def _mean(values: Tensor, outlines: Tensor) -> Tensor:
    """The mean of each item, ``[N]``."""
    return (values * outlines).sum((1, 2)) / outlines.sum((1, 2)).clamp(min=1)


def _damaged(items: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Items and outlines as ``segmentation`` finds them: pieces are missing, others belong to the background."""
    count, edge = items.shape[:2]

    def pieces() -> Tensor:
        limit = torch.where(torch.rand(count) < _DAMAGED_SHARE, _between(count, 1.4, 2.4), 9.0)
        return torch.sigmoid((_noise(count, 6, edge) - _each(limit)) * 10)

    outlines = torch.sigmoid((inside - 0.5) * 8) * (inside > 0.02) * (1 - pieces())
    beside = F.max_pool2d(outlines[:, None], 5, 1, 2)[:, 0] * (1 - outlines)
    background = _mean(items, outlines) + 0.2 * torch.randn(count)
    return torch.where(inside > 0.3, items, _each(background)), torch.maximum(outlines, pieces() * beside)


def _printed(items: Tensor, outlines: Tensor) -> Tensor:
    """The deviations of each item from its mean: inverted for dark prints, with light, texture, stripes and a print."""
    count, edge = items.shape[:2]
    x, y = _places(edge).unbind(-1)
    sign = 1 - 2 * _chance(count, _INVERTED_SHARE)
    values = (items - _each(_mean(items, outlines))) * _each(sign * torch.exp(0.5 * torch.randn(count)))
    values = values + 0.06 * (_each(torch.randn(count)) * x + _each(torch.randn(count)) * y)
    for points in (5, 9, 14):
        strength = 0.2 * torch.rand(count) * _chance(count, _TEXTURE_SHARE)
        values = values + _each(strength) * _noise(count, points, edge)
    # Most stripes run across.
    direction = F.normalize(torch.randn(count, 2)) * _between(count, 4, 20)[:, None]
    direction[:, 0] *= torch.where(torch.rand(count) < 0.7, 0.1, 1.0)
    phase = x * _each(direction[:, 0]) + y * _each(direction[:, 1]) + _each(_between(count, 0, 6.28))
    strength = 0.35 * torch.rand(count) * _chance(count, _STRIPES_SHARE)
    values = values + _each(strength) * torch.sin(phase)
    center, radius = 0.15 * torch.randn(count, 2) - torch.tensor([0.0, 0.1]), 0.12 + 0.3 * torch.rand(count, 2)
    squares = ((_places(edge) - center[:, None, None]) / radius[:, None, None]).square().sum(-1)
    print_ = torch.sigmoid((1 - squares) * 6) * (1 + 0.6 * _noise(count, 12, edge))
    return values + _each(0.4 * torch.randn(count) * _chance(count, _PRINT_SHARE)) * print_


def _lit(values: Tensor, outlines: Tensor) -> Tensor:
    """Items of any mean level and contrast on black, 0 to 1."""
    count = len(values)
    values = values - _each(_mean(values, outlines))
    deviation = _mean(values.square(), outlines).sqrt()
    contrast = _CONTRAST * torch.exp(0.5 * torch.randn(count))
    gain = (contrast / deviation.clamp(min=1e-3)).clamp(max=1.5)
    level = _DARKEST + _LEVELS * torch.rand(count) ** 0.8
    return (_each(level) + values * _each(gain)).clamp(0.02, 1) * outlines
