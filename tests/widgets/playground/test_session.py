"""The playground without its widgets: texts, runs that take turns, and what becomes of a run when its script ends."""

import subprocess
import sys
import threading

import grimp
import pytest

from persimmon_lab.widgets.playground.session import Session
from persimmon_lab.widgets.playground.settings import Settings

SETTINGS = Settings("Once upon a time", temperature=1.3, max_new_tokens=12, seed=3)

ENDS_WHILE_IT_WRITES = """
import atexit, time

atexit.register(lambda: print(one.run.stopped, one.run.is_over, 0 < len(one.run.tokens) < 400))  # after all others

from persimmon_lab import load_mini
from persimmon_lab.widgets import GenerationPlayground

model, tokenizer = load_mini()
model.config.eos_token_id = None
one = GenerationPlayground(model, tokenizer, "Once upon a time", max_new_tokens=400, temperature=1.0).generate()
while not one.run.tokens:
    time.sleep(0.001)
"""

BEGINS = """
import sys
from persimmon_lab import load_mini
from persimmon_lab.widgets import GenerationPlayground

model, tokenizer = load_mini()
"""
ENDS = {
    "before a run that follows the typing": """
one = GenerationPlayground(model, tokenizer, "Once", as_you_type=True, max_new_tokens=300)
one.controls["prompt"].value = "Once upon"
sys.exit(3)
""",
    "while a token of a saved tree is read again": """
one = GenerationPlayground(model, tokenizer, "Once", max_new_tokens=12).generate().wait()
again = GenerationPlayground.from_json(model, tokenizer, one.tree.to_json())
again.view.chosen = 5
again.screen.describe()
sys.exit(3)
""",
    "in the middle of a walk in lockstep": """
import torch
from persimmon_lab.numerics.lockstep import lockstep
walk = lockstep([model, model], lambda each: each(torch.tensor([[5, 6, 7]]), use_cache=False))
next(walk)
sys.exit(3)
""",
}


@pytest.fixture
def session(model, tokenizer):
    session = Session(model, tokenizer)
    yield session
    session.stop()
    session.wait()


def test_it_needs_no_widgets():
    imports = grimp.build_graph("persimmon_lab", include_external_packages=True, cache_dir=None)
    above = imports.find_upstream_modules("persimmon_lab.widgets.playground.session")
    assert "torch" in above
    assert not above & {"ipywidgets", "anywidget", "IPython", "traitlets"}


def test_it_writes_what_the_settings_say(session, model, tokenizer):
    session.generate(SETTINGS)
    session.wait()
    ids = tokenizer(SETTINGS.prompt, return_tensors="pt").input_ids
    written = model.generate(ids, do_sample=True, temperature=1.3, top_p=0.95, max_new_tokens=12, seed=3)
    assert session.text == tokenizer.decode(written[0], skip_special_tokens=True)
    assert not session.working and session.error is None


def test_it_tells_of_growth_and_of_the_end(session, monkeypatch):
    monkeypatch.setattr("persimmon_lab.widgets.playground.session.SECONDS_BETWEEN_UPDATES", 0.0)
    told = []
    session.on_growth = lambda: told.append((len(session.shown.tokens), session.working))
    session.on_change = lambda: told.append("over" if not session.working else "begun")
    session.generate(SETTINGS)
    session.wait()
    assert told == [*((count, True) for count in range(1, 13)), "over"]
    told.clear()
    session.take(SETTINGS, 3, 40)
    session.wait()
    assert (told[0], told[-1]) == ("begun", "over"), "the token that was put in is there at once"


@pytest.mark.parametrize(
    ("index", "token_id", "name"), [("0", 5, "index"), (0, "5", "token_id"), (True, 5, "index"), (0, 1.0, "token_id")]
)
def test_a_token_is_named_by_whole_numbers(session, index, token_id, name, unchecked_annotations):
    session.generate(SETTINGS)
    session.wait()
    with pytest.raises(TypeError, match=rf"{name} is .*; give a whole number"):
        session.found(SETTINGS, index, token_id)


def test_one_run_at_a_time_asks_the_model(session, model):
    asking, most = [], []

    def enter(*_):
        asking.append(threading.get_ident())
        most.append(len(set(asking)))

    model.register_forward_pre_hook(enter)
    model.register_forward_hook(lambda *_: asking.remove(threading.get_ident()))
    for seed in range(4):
        session.generate(Settings("Once", max_new_tokens=50, seed=seed))
    session.wait()
    assert max(most) == 1
    assert len(session.shown.tokens) == 50


def test_before_the_first_text_there_is_none(session):
    assert session.text == ""
    assert session.code(SETTINGS) == SETTINGS.code()
    with pytest.raises(ValueError, match="nothing has been written yet"):
        _ = session.shown
    with pytest.raises(ValueError, match="nothing has been written yet"):
        session.compare(SETTINGS)


def test_a_script_that_ends_while_it_writes_stops_it_first():
    result = subprocess.run([sys.executable, "-c", ENDS_WHILE_IT_WRITES], capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "True True True\n", "")


@pytest.mark.parametrize("when", ENDS)
def test_a_script_ends_as_it_says_whatever_is_at_work(when):
    result = subprocess.run([sys.executable, "-c", BEGINS + ENDS[when]], capture_output=True, text=True, timeout=300)
    assert (result.returncode, result.stdout, result.stderr) == (3, "", "")
