"""Procedural image classes: the default dataset, deterministic from a seed and drawn on demand.

A class is a *recipe*: two random fields with spectra and colours of their own, squashed into stripes, spots and cells
(`_prototypes`). An image is a window of such a prototype, rotated, scaled, flipped and moved, seen through a random
blob in front of another texture that tells nothing, under other light, with noise (`_render`). So classes differ in
local texture and colour, not in position, and telling one from the foreground and not from the background has to be
learned; a small training set can be learned by heart.
"""

import hashlib
import json
from collections import OrderedDict
from typing import NamedTuple

import numpy as np

GENERATOR_VERSION = 1  # part of the fingerprint: raise it whenever the same parameters give other images
SPLIT_STREAMS = {"train": 1, "valid": 2, "test": 3}  # 0 draws the recipe
_PERIOD = 4  # a canvas is periodic, this many image widths wide
_PROTOTYPES = 4  # canvases of one class
_BACKGROUNDS = 64  # canvases that all classes share
_CACHED_ARRAYS = 128


class Difficulty(NamedTuple):
    """How hard ten classes are to tell apart; changing a default is a new GENERATOR_VERSION."""

    background: float = 1.0  # contrast of the textures that tell nothing
    cover: float = 0.1  # threshold of the blob: 0 shows the class on half of the image, more shows less of it
    tint: float = 0.5  # standard deviation of the colour shift of an image
    light: float = 0.3  # standard deviation of the logarithm of its contrast
    rotation: float = 0.3  # radians, standard deviation
    zoom: float = 0.2  # standard deviation of the logarithm of the scale
    noise: float = 0.3  # half width of the uniform noise of a pixel


class Procedural:
    """Classes 0 .. `classes` - 1 of images `[image_size, image_size, 3]`, `counts[split]` of them in each class."""

    def __init__(
        self, image_size: int, classes: int, counts: dict[str, int], seed: int, difficulty: Difficulty | None = None
    ):
        self.image_shape = (image_size, image_size, 3)
        self.classes = classes
        self._counts = dict(counts)
        self._seed = seed
        self._difficulty = difficulty or Difficulty()
        self._backgrounds: np.ndarray | None = None
        self._masks: np.ndarray | None = None
        self._cache: OrderedDict[tuple[int, str], np.ndarray] = OrderedDict()
        self.fingerprint = self._digest()

    def max_count(self, split: str) -> int:
        """The largest number of images that a class has in this inner split (here: every class has it)."""
        return self._counts[split]

    def images(self, cls: int, split: str) -> np.ndarray:
        """uint8 `[n, H, W, C]`, read-only; the same for the same arguments, in any process."""
        if not 0 <= cls < self.classes:
            raise IndexError(f"class {cls} of {self.classes}")
        key = (int(cls), split)
        if key not in self._cache:
            self._cache[key] = self._draw(*key)
            if len(self._cache) > _CACHED_ARRAYS:
                self._cache.popitem(last=False)
        self._cache.move_to_end(key)
        return self._cache[key]

    def _draw(self, cls: int, split: str) -> np.ndarray:
        size = self.image_shape[0]
        if self._backgrounds is None or self._masks is None:
            rng = np.random.default_rng([self._seed, 0])
            self._backgrounds = np.concatenate([_prototypes(rng, size, 1) for _ in range(_BACKGROUNDS)])
            self._masks = _blobs(rng, size)
        canvases = _prototypes(np.random.default_rng([self._seed, 1, cls, 0]), size, _PROTOTYPES)
        rng = np.random.default_rng([self._seed, 1, cls, SPLIT_STREAMS[split]])
        count = self._counts[split]
        images = _render(rng, count, size, canvases, self._backgrounds, self._masks, self._difficulty)
        images.flags.writeable = False
        return images

    def _digest(self) -> str:
        content = {
            "source": "procedural",
            "generator": GENERATOR_VERSION,
            "image_shape": self.image_shape,
            "classes": self.classes,
            "counts": self._counts,
            "seed": self._seed,
            "difficulty": self._difficulty,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _prototypes(rng: np.random.Generator, size: int, count: int) -> np.ndarray:
    """`count` periodic canvases `[count, P, P, 3]` of one recipe, P = `_PERIOD` size, values about -1 .. 1."""
    layers = [
        np.tanh(rng.uniform(1, 4) * _field(rng, size, count) + rng.normal() * 0.5)[..., None] * _colour(rng)
        for _ in range(2)
    ]
    return (0.5 * rng.normal(size=3) * 0.5 + layers[0] + 0.7 * layers[1]).astype(np.float32)


def _colour(rng: np.random.Generator) -> np.ndarray:
    direction = rng.normal(size=3)
    return 0.8 * direction / np.linalg.norm(direction)


def _field(rng: np.random.Generator, size: int, count: int) -> np.ndarray:
    """Gaussian fields `[count, P, P]` of unit variance, their power at two random wave vectors (cycles per image)."""
    period = _PERIOD * size
    y = np.fft.fftfreq(period, 1 / size)[:, None] * _PERIOD / _PERIOD * 1.0
    x = np.fft.rfftfreq(period, 1 / size)[None, :]
    amplitude = np.zeros((period, period // 2 + 1))
    for weight in (1.0, rng.uniform(0, 1)):
        frequency, angle, width = rng.uniform(1, 6), rng.uniform(-np.pi / 2, np.pi / 2), rng.uniform(0.3, 1.2)
        distance = (x - frequency * np.cos(angle)) ** 2 + (y - frequency * np.sin(angle)) ** 2
        amplitude += weight * np.exp(-distance / (2 * width**2))
    phases = rng.normal(size=(count, 2, *amplitude.shape))
    field = np.fft.irfft2((phases[:, 0] + 1j * phases[:, 1]) * amplitude, s=(period, period))
    return field / field.std()


def _blobs(rng: np.random.Generator, size: int) -> np.ndarray:
    """A periodic canvas `[P, P]` of smooth shapes, of unit variance."""
    period = _PERIOD * size
    frequency = np.hypot(np.fft.fftfreq(period, 1 / size)[:, None], np.fft.rfftfreq(period, 1 / size)[None, :])
    spectrum = np.exp(-((frequency / 1.2) ** 2)) * rng.normal(size=(2, period, period // 2 + 1))
    field = np.fft.irfft2(spectrum[0] + 1j * spectrum[1], s=(period, period))
    return (field / field.std()).astype(np.float32)


def _windows(rng: np.random.Generator, count: int, size: int, rotation: float, zoom: float) -> np.ndarray:
    """Flat indices `[count, size, size]` into a canvas, of randomly moved, turned, scaled and flipped windows."""
    period = _PERIOD * size
    angle = rng.normal(0, rotation, count).astype(np.float32)
    scale = np.exp(rng.normal(0, zoom, count)).astype(np.float32)
    flip = rng.choice(np.array([-1, 1], np.float32), count)
    top, left = rng.uniform(0, period, (2, count)).astype(np.float32)
    steps = np.arange(size, dtype=np.float32)
    along = (scale * np.cos(angle))[:, None, None]
    across = (scale * np.sin(angle))[:, None, None]
    rows, columns = steps[None, :, None], flip[:, None, None] * steps[None, None, :]
    y = (top[:, None, None] + along * rows + across * columns).astype(np.int32) % period
    x = (left[:, None, None] - across * rows + along * columns).astype(np.int32) % period
    return y * period + x


def _render(
    rng: np.random.Generator,
    count: int,
    size: int,
    canvases: np.ndarray,
    backgrounds: np.ndarray,
    masks: np.ndarray,
    hard: Difficulty,
) -> np.ndarray:
    """uint8 `[count, size, size, 3]`: the class in front, another texture behind, random light."""
    area = (_PERIOD * size) ** 2

    def view(bank: np.ndarray) -> np.ndarray:
        which = rng.integers(len(bank), size=count, dtype=np.int32)
        window = _windows(rng, count, size, hard.rotation, hard.zoom)
        return bank.reshape(len(bank) * area, -1)[window + which[:, None, None] * area]

    shown = np.clip(4 * (view(masks[None]) - hard.cover) + 0.5, 0, 1)
    behind = hard.background * view(backgrounds)
    pixels = behind + shown * (view(canvases) - behind)
    contrast = np.exp(rng.normal(0, hard.light, (count, 1, 1, 3)) * [0.5, 0.5, 0.5]).astype(np.float32)
    shift = rng.normal(0, hard.tint, (count, 1, 1, 3)).astype(np.float32)
    pixels = pixels * contrast + shift
    pixels += 2 * hard.noise * (rng.random(pixels.shape, np.float32) - 0.5)
    return np.clip(127.5 + 60 * pixels, 0, 255).astype(np.uint8)
