"""Boxes follow their images: held against boxes painted into the images, which the same change moves pixel by pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tunewright.data.image.augmentation import Augmentation, build_augmentation
from tunewright.data.image.boxes import LEAST_VISIBLE, Boxes
from tunewright.data.image.resize_crop import Framing

HEIGHT, WIDTH = 60, 90
BOX = (20, 15, 50, 40)
CPU = torch.device("cpu")


def built(*steps: Any) -> Augmentation:
    found = build_augmentation(steps, seed=3, classes=2)
    assert found is not None
    return found


def painted(boxes: list[tuple[int, int, int, int]]) -> torch.Tensor:
    """A white box in each black picture."""
    images = torch.zeros(len(boxes), 1, HEIGHT, WIDTH)
    for image, (x0, y0, x1, y1) in zip(images, boxes, strict=True):
        image[:, y0:y1, x0:x1] = 1
    return images


def found_box(image: np.ndarray) -> np.ndarray | None:
    """The corners of what is white in a picture [H, W]."""
    rows, columns = np.nonzero(image > 0.5)
    if not len(rows):
        return None
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


STEPS: list[tuple[Any, float]] = [
    ("flip", 0.01),
    ({"flip": {"vertical": True}}, 0.01),
    ({"crop": 12}, 0.01),
    ("resized_crop", 1.0),
    ("color", 0.01),
    ({"randaugment": {"n": 1, "m": 9}}, 2.0),
    ({"randaugment": {"n": 2, "m": 5}}, 9.0),  # a box around a turned box grows when it is turned again
]


@pytest.mark.parametrize(("step", "within"), STEPS, ids=lambda value: str(value))
def test_boxes_are_where_the_painted_boxes_are(step: Any, within: float) -> None:
    count = 300
    change = built(step)
    draw = change.draw(torch.arange(count), 1, CPU)
    images = change.change(painted([BOX] * count), draw)[:, 0].numpy()
    boxes = change.move(Boxes.of(np.array([BOX] * count), np.arange(count)), draw, (HEIGHT, WIDTH))
    moved = dict(zip(boxes.index.tolist(), boxes.corners, strict=True))
    area = (BOX[2] - BOX[0]) * (BOX[3] - BOX[1])
    colours = step == "color" or "randaugment" in str(step)  # which may darken or invert a picture
    compared = 0
    for index, image in enumerate(images):
        seen = found_box(image)
        if colours and (seen is None or (seen == (0, 0, WIDTH, HEIGHT)).all()):
            continue
        if index not in moved:
            assert seen is None or (image > 0.5).sum() <= 2 * LEAST_VISIBLE * area
            continue
        assert seen is not None
        # The smallest box around a turned box may be larger than what is white, never smaller.
        assert (np.abs(moved[index] - seen) <= within).all(), (index, moved[index], seen)
        compared += 1
    assert compared > count // 2
    unmoved = np.array([BOX] * len(boxes.index))
    assert (step == "color") == np.array_equal(boxes.corners, unmoved)


def test_flips_by_hand() -> None:
    boxes = Boxes.of(np.array([BOX, (0, 0, 90, 60)]), np.array([0, 0]))
    for step, expected in (("flip", (40, 15, 70, 40)), ({"flip": {"vertical": True}}, (20, 20, 50, 45))):
        options = {"vertical": True} if isinstance(step, dict) else {}
        change = built({"flip": {"chance": 1.0, **options}})
        moved = change.move(boxes, change.draw(torch.tensor([0]), 0, CPU), (HEIGHT, WIDTH))
        assert np.allclose(moved.corners, [expected, (0, 0, 90, 60)])


def test_what_is_cut_off_stays_cut_off_and_little_of_it_is_dropped() -> None:
    def left(pixels: float) -> np.ndarray:
        return np.array([[[1.0, 0, 2 * pixels / WIDTH], [0, 1, 0]]])

    boxes = Boxes.of(np.array([(0, 0, 90, 60), (40, 0, 50, 10), (0, 0, 45, 10), (44, 0, 90, 60), (44.5, 0, 45.4, 9)]))
    moved = boxes.moved(left(45), (HEIGHT, WIDTH))
    assert np.allclose(moved.corners, [[0, 0, 45, 60], [0, 0, 5, 10], [0, 0, 45, 60]])
    assert moved.index.tolist() == [0, 1, 3] and np.allclose(moved.visible, [0.5, 0.5, 45 / 46])
    returned = moved.moved(left(-45), (HEIGHT, WIDTH))
    assert np.allclose(returned.corners, [[45, 0, 90, 60], [45, 0, 50, 10], [45, 0, 90, 60]])
    # The tenth counts over all changes: three tenths of three tenths are less.
    once = Boxes.of(np.array([(0, 0, 90, 60)])).moved(left(63), (HEIGHT, WIDTH))
    assert np.allclose(once.corners, [[0, 0, 27, 60]]) and np.allclose(once.visible, 0.3)
    assert len(once.moved(left(27 * 0.6), (HEIGHT, WIDTH)).corners) == 1
    assert len(once.moved(left(27 * 0.7), (HEIGHT, WIDTH)).corners) == 0


def test_each_box_moves_with_its_own_image() -> None:
    change = built({"crop": 12})
    images = torch.tensor([5, 8, 11])
    draw = change.draw(images, 2, CPU)
    together = change.move(Boxes.of(np.array([BOX] * 4), np.array([2, 0, 2, 1])), draw, (HEIGHT, WIDTH))
    for place, corners in zip([2, 0, 2, 1], together.corners, strict=True):
        alone = change.draw(images[place : place + 1], 2, CPU)
        assert np.array_equal(change.move(Boxes.of(np.array([BOX])), alone, (HEIGHT, WIDTH)).corners[0], corners)
    assert not np.array_equal(together.corners[0], together.corners[1])


@pytest.mark.parametrize(
    ("size", "scale_to"),
    [
        ((30, 45), (30, 45)),
        ((40, 40), 40),
        ((32, 32), 48),
        ((80, 100), None),
        ((50, 51), None),
        ((120, 60), (120, 180)),
    ],
)
def test_framed_boxes_are_where_the_framed_paint_is(size: tuple[int, int], scale_to: Any) -> None:
    framing = Framing(size=size, scale_to=scale_to, filter="bilinear")
    picture = Image.fromarray((painted([BOX])[0, 0].numpy() * 255).astype(np.uint8))
    seen = found_box(framing.picture(picture)[..., 0] / 255)
    (moved,) = framing.boxes(Boxes.of(np.array([BOX])), HEIGHT, WIDTH).corners
    assert seen is not None and (np.abs(moved - seen) <= 1.0).all(), (moved, seen)


def test_no_boxes_are_no_boxes() -> None:
    empty = Boxes.of(np.zeros((0, 4)), np.zeros(0))
    change = built("flip", {"randaugment": {"n": 2}})
    assert change.move(empty, change.draw(torch.tensor([1]), 0, CPU), (HEIGHT, WIDTH)).corners.shape == (0, 4)
