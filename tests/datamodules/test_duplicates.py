"""Copies are found in every turn, shifted, brightened and compressed; different pictures are not."""

import cv2
import numpy as np
import pytest

from datamodules import duplicates
from datamodules.duplicates import MARGIN, Anchors, find_anchors, find_copies


class Picture:
    """A scene of one array, read as `SceneReader.image` reads."""

    def __init__(self, array):
        self.array = array

    def image(self, row, column, height, width):
        whole, missing = np.zeros((height, width, 1), np.uint8), np.ones((height, width), bool)
        top, left = max(row, 0), max(column, 0)
        bottom, right = min(row + height, len(self.array)), min(column + width, self.array.shape[1])
        inside = np.s_[top - row : bottom - row, left - column : right - column]
        whole[inside], missing[inside] = self.array[top:bottom, left:right, None], False
        return whole, missing

    def close(self):
        pass


def texture(seed, size):
    rng = np.random.default_rng(seed)
    layers = [
        cv2.resize(rng.normal(0, scale, (size // scale,) * 2), (size, size), interpolation=cv2.INTER_CUBIC) for scale in (2, 4, 8, 16)
    ]
    total = sum(layers)
    return np.clip(128 + 100 * total / abs(total).max(), 0, 255).astype(np.uint8)


def anchors(picture):
    size = len(picture.array) + 2 * MARGIN
    return find_anchors(*picture.image(-MARGIN, -MARGIN, size, size), 0, 0)


def copies(one, other):
    pictures = [Picture(np.ascontiguousarray(array)) for array in (one, other)]
    return find_copies(pictures, ("train", "test"), [anchors(picture) for picture in pictures], lambda first, second: False)


@pytest.mark.parametrize("turn", range(8))
def test_every_turn_is_found_and_named(turn):
    tile = texture(0, 128)
    (found,) = copies(tile, duplicates._turned(tile, turn))
    assert found.scenes in ((0, 1), (1, 0))
    assert found.correlation > 0.99
    forth = found.scenes == (0, 1)
    inverse = {1: 3, 3: 1}.get(turn, turn)  # mirrored turns undo themselves
    assert found.turn == duplicates._TURNS[turn if forth else inverse]


@pytest.mark.parametrize(("down", "right"), [(1, 0), (7, 13), (32, 16), (-20, 30), (45, 0)])
def test_shifted_brightened_and_compressed(down, right):
    ground = texture(1, 256)
    one = ground[64:192, 64:192]
    other = ground[64 + down : 192 + down, 64 + right : 192 + right]
    other = np.rot90(np.clip(other * 0.9 + 10, 0, 255).astype(np.uint8))
    other = cv2.imdecode(cv2.imencode(".jpg", np.ascontiguousarray(other), [cv2.IMWRITE_JPEG_QUALITY, 80])[1], cv2.IMREAD_GRAYSCALE)
    (found,) = copies(one, other)
    assert found.correlation > 0.9


def test_descriptions_do_not_change_under_turns():
    patch = np.random.default_rng(0).normal(size=(25, 25)).astype(np.float32)
    for turn in range(8):
        assert duplicates._describe(np.ascontiguousarray(duplicates._turned(patch, turn))) == pytest.approx(
            duplicates._describe(patch), abs=1e-5
        )


def test_different_pictures_and_flat_ones_are_no_copies():
    tiles = [Picture(texture(seed, 128)) for seed in range(12)] + [Picture(np.full((128, 128), 9, np.uint8))] * 2
    found = [anchors(tile) for tile in tiles]
    assert [len(one.rank) for one in found[-2:]] == [0, 0]
    assert not find_copies(tiles, ["train", "test"] * 7, found, lambda one, other: False)
    assert not find_copies([], [], [], lambda one, other: False)


def test_a_road_in_both_is_no_copy():
    one, other = texture(2, 128), texture(3, 128)
    for tile in (one, other):
        tile[:] = 100 + tile // 16
        tile[:, 60:68] = 250
    assert not copies(one, other)


def test_only_different_splits_and_different_ground_count():
    tile = Picture(texture(4, 128))
    found = anchors(tile)
    assert not find_copies([tile, tile], ["train", "train"], [found, found], lambda one, other: False)
    assert not find_copies([tile, tile], ["train", "test"], [found, found], lambda one, other: True)


def test_many_anchors_are_thinned_to_the_strongest(monkeypatch):
    tile = Picture(texture(5, 128))
    found = anchors(tile)
    monkeypatch.setattr(duplicates, "_MAX_ANCHORS", 4)
    asked = []
    find_copies([tile, tile], ["train", "test"], [found, found], lambda one, other: asked.append((one, other)) or True)
    strongest = {tuple(place) for place in found.places[:2].tolist()}
    assert {tuple(int(part) for part in one[1:]) for pair in asked for one in pair} == strongest


def test_joined_keeps_the_order():
    part = Anchors(np.array([[1, 2]]), np.array([0]), np.ones((1, 48), np.float32))
    assert Anchors.joined([part, part]).places.tolist() == [[1, 2], [1, 2]]
    assert len(Anchors.joined([]).rank) == 0
