"""A history keeps what the curves need, and of an earlier run nothing after the step that the later one began at."""

from persimmon_lab.training.history import History, Run

SCORE = {"right": 3, "count": 4, "groups": {"a": [3, 4]}, "misses": [{"prompt": "long"}]}
LOG = [
    {"step": 25, "loss": 3.123456},
    {"step": 100, "loss": 2.123456, "norm": 0.5, "tokens_per_second": 9},
    {"step": 100, "held_out": {"chat": 1.987654}},
    {"step": 100, "skills": {"sums": SCORE}},
    {"step": 200, "loss": 1.5, "norm": 0.4},
]
MOMENTS = [{"step": 100, "strongest": 0.5}, {"step": 200, "strongest": 0.9}]


def test_what_the_curves_need_is_kept():
    history = History().followed_by(Run(0, 200, "abc", {"chat": 1.0}), LOG, MOMENTS)
    assert history.entries == [
        {"step": 25, "loss": 3.1235},
        {"step": 100, "loss": 2.1235},
        {"step": 100, "held_out": {"chat": 1.9877}},
        {"step": 100, "skills": {"sums": {"right": 3, "count": 4}}},
        {"step": 200, "loss": 1.5},
    ]
    assert history.growth == MOMENTS and [run.commit for run in history.runs] == ["abc"]


def test_of_many_losses_some_are_kept_and_the_last():
    log = [{"step": step, "loss": 1.0} for step in range(1, 1001)]
    kept = [entry["step"] for entry in History().followed_by(Run(0, 1000, "", {}), log, []).entries]
    assert kept[-1] == 1000 and 100 < len(kept) <= 150 and len({b - a for a, b in zip(kept, kept[1:])}) == 1


def test_a_later_run_begins_where_it_went_on(tmp_path):
    first = History().followed_by(Run(0, 200, "abc", {"chat": 1.0}), LOG, MOMENTS)
    second = first.followed_by(Run(150, 300, "def", {"chat": 2.0}), [{"step": 300, "loss": 1.0}], [])
    assert [entry["step"] for entry in second.entries] == [25, 100, 100, 100, 300]
    assert second.growth == MOMENTS[:1]
    second.write(tmp_path / "history.json")
    assert History.read(tmp_path / "history.json") == second
    assert History.read(tmp_path / "none.json") == History()
