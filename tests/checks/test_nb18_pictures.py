"""The marks of notebook 18 accept right answers, written here another way, and name what is wrong with wrong ones."""

import pytest
import torch

from persimmon_lab.checks import nb18_pictures as checks
from persimmon_lab.vision import joined
from tests.checks.verdicts import assert_no_answers, assert_recognised, assert_right, mistakes_of

EXERCISES = {"put_together": checks.put_together, "fill_places": checks.fill_places}


def pixel_by_pixel(patches, rows, side):
    columns, channels = len(patches) // rows, patches.shape[1] // side**2
    picture = torch.empty(channels, rows * side, columns * side)
    for channel, height, width in torch.cartesian_prod(*map(torch.arange, picture.shape)).tolist():
        patch = height // side * columns + width // side
        feature = (height % side * side + width % side) * channels + channel
        picture[channel, height, width] = patches[patch, feature]
    return picture


def one_after_the_other(embeds, is_place, projected):
    patches = iter(projected)
    return torch.stack(
        [
            torch.stack([next(patches) if place else word for word, place in zip(*row)])
            for row in zip(embeds, is_place.tolist())
        ]
    )


def test_right_answers_found_another_way():
    assert_right(checks.put_together, pixel_by_pixel)
    assert_right(checks.put_together, joined)
    assert_right(checks.fill_places, one_after_the_other)


@pytest.mark.parametrize(("name", "message"), mistakes_of(EXERCISES))
def test_every_named_mistake_is_recognised_as_itself(name, message):
    assert_recognised(EXERCISES[name], message)


@pytest.mark.parametrize("name", EXERCISES)
def test_an_answer_that_is_no_answer(name):
    assert_no_answers(EXERCISES[name])
