"""Labels find places that are in nobody's way, the nearest first, or say that there is none."""

import pytest

from persimmon_lab.viz.point_labels import Box, Spot, arranged, crosses, disturb, meet, spots_around


@pytest.mark.parametrize(
    ("start", "end", "meets"),
    [
        ((-1.0, 0.5), (2.0, 0.5), True),
        ((-1.0, 2.0), (2.0, 2.0), False),
        ((0.5, -1.0), (0.5, 3.0), True),
        ((0.0, 1.5), (1.5, 0.0), True),
        ((0.0, 2.5), (2.5, 0.0), False),
        ((2.0, 0.5), (3.0, 0.5), False),
    ],
)
def test_a_line_crosses_a_box_only_where_it_passes_through(start, end, meets):
    assert crosses(Box(0, 0, 1, 1), start, end) is meets


@pytest.mark.parametrize(
    ("first", "last", "meets"),
    [
        ((0.0, 1.0), (1.0, 0.0), True),
        ((0.6, 0.0), (1.0, 0.9), False),
        ((2.0, 0.0), (0.0, 3.0), False),
        ((0.0, 0.2), (1.0, 1.2), False),
        ((2.0, 2.1), (2.1, 2.0), False),
    ],
)
def test_lines_meet_only_between_their_ends(first, last, meets):
    start, end = (0.0, 0.0), (1.0, 1.0)
    assert meet(start, end, first, last) is meets
    assert meet(first, last, start, end) is meets


def test_the_nearest_places_come_first_and_only_the_far_ones_are_led_to():
    spots = list(spots_around((100.0, 50.0), width=40.0, height=10.0, gap=6.0, near=8.0))
    boxes = [spot.box for spot in spots]
    assert boxes[0] == (106, 45, 146, 55)  # right, at the point's height
    assert (54, 45, 94, 55) in boxes[:3]
    assert (80, 34, 120, 44) in boxes[:20] and (80, 56, 120, 66) in boxes[:20]
    assert len(set(boxes)) == len(boxes) > 200
    gaps = [max(box.left - 100, 100 - box.right, box.bottom - 50, 50 - box.top) for box in boxes]
    assert min(gaps) == 6
    assert spots[0].lead is None
    (led,) = [spot for spot in spots if spot.box == (121, 60, 161, 70)]
    assert led.lead == ((121, 60), (100, 50))
    assert led.alignment == "left"


def at(left, bottom, lead=None):
    return Spot(Box(left, bottom, left + 10, bottom + 10), "left", lead)


@pytest.mark.parametrize(
    ("one", "other", "disturbs"),
    [
        (at(0, 0), at(20, 0), False),
        (at(0, 0), at(9, 9), True),
        (at(0, 0), at(12, 0), True),  # too near to be told apart
        (at(0, 0), at(0, 14), False),
        (at(0, 0), at(0, 12), True),
        (at(0, 0), at(30, 0, ((30.0, 5.0), (-5.0, 5.0))), True),
        (at(0, 0), at(30, 0, ((30.0, 5.0), (30.0, 50.0))), False),
        (at(0, 0, ((5.0, 10.0), (40.0, 40.0))), at(30, 0, ((35.0, 10.0), (5.0, 40.0))), True),
        (at(0, 0, ((5.0, 10.0), (5.0, 40.0))), at(30, 0, ((35.0, 10.0), (35.0, 40.0))), False),
    ],
)
def test_labels_disturb_each_other_where_they_or_their_lines_meet(one, other, disturbs):
    assert disturb(one, other) is disturbs
    assert disturb(other, one) is disturbs


def test_who_finds_no_place_comes_first_in_the_next_round():
    spots = {"free": [at(0, 0), at(50, 0)], "bound": [at(0, 5)]}
    assert arranged(spots, ["free", "bound"]) == {"bound": at(0, 5), "free": at(50, 0)}
    assert arranged(spots, []) == {}
    assert arranged({"free": [at(0, 0)], "bound": [at(0, 5)]}, ["free", "bound"]) is None
