"""The playground's wiring: threads that end, errors that are seen, and a view that is told what happened."""

import copy
import json
import math
import re
import threading
from dataclasses import replace
from html.parser import HTMLParser
from itertools import chain, count, repeat

import pytest
import torch

from persimmon_lab.footprint import in_bytes
from persimmon_lab.generation import GenerationConfig
from persimmon_lab.viz.html.nucleus import nucleus_html
from persimmon_lab.viz.html.tokens import tokens_html
from persimmon_lab.widgets import GenerationPlayground
from persimmon_lab.widgets.playground import run, session, widget
from persimmon_lab.widgets.playground.run import path_ids
from tests.widgets.playground.test_text import output_of

NASTY = "<script>alert(1)</script>"


class Screen:
    """What a browser would show: applies the view's messages as token_view.js does."""

    def __init__(self, view):
        self.messages, self.tokens = [], []
        view.send = self.receive

    def receive(self, message):
        self.messages.append(message)
        assert message["start"] <= len(self.tokens), "nothing is missing in between"
        self.tokens[message["start"] :] = top_level_spans(message["html"])


class TopLevelSpans(HTMLParser):
    def __init__(self, source):
        super().__init__()
        self.source, self.starts, self.depth = source, [], 0
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        if self.depth == 0:
            line, column = self.getpos()
            self.starts.append(sum(len(row) for row in self.source.splitlines(True)[: line - 1]) + column)
        self.depth += 1

    def handle_endtag(self, tag):
        self.depth -= 1


def top_level_spans(source: str) -> list[str]:
    starts = TopLevelSpans(source).starts
    return [source[start:end] for start, end in zip(starts, [*starts[1:], len(source)])]


@pytest.fixture
def make(model, tokenizer):
    """A function that makes playgrounds of the small model, and closes them after the test."""
    made = []

    def make(prompt="Once upon a time", model=model, **options):
        options = {"max_new_tokens": 12, "temperature": 1.3, "seed": 3} | options
        made.append(GenerationPlayground(model, tokenizer, prompt, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()
        one.wait()


def stop_at(playground, token):
    """Press Stop while the model works on that token, counted from 1."""
    calls = count(1)
    playground.model.register_forward_hook(lambda *_: playground.stop_button.click() if next(calls) == token else None)


class Held:
    """Keeps the model from answering: `at_work` is set once it is asked, and it answers once `go_on` is set."""

    def __init__(self, model):
        self.at_work, self.go_on = threading.Event(), threading.Event()
        self.hook = model.register_forward_hook(self.hold)

    def hold(self, *_):
        self.at_work.set()
        self.go_on.wait(30)


def test_it_writes_what_generate_writes(make, model, tokenizer):
    one = make().generate().wait()
    assert len(one.run.tokens) == 12
    prompt_ids = tokenizer("Once upon a time", return_tensors="pt").input_ids
    ids = model.generate(prompt_ids, do_sample=True, temperature=1.3, top_p=0.95, max_new_tokens=12, seed=3)
    assert one.text == tokenizer.decode(ids[0], skip_special_tokens=True)


def test_the_screen_shows_every_token_once(make, monkeypatch):
    monkeypatch.setattr(session, "SECONDS_BETWEEN_UPDATES", 0.0)
    one = make()
    screen = Screen(one.view)
    one.generate_button.click()
    one.wait()
    assert len(screen.messages) > 5
    assert "".join(message["html"] for message in screen.messages) == tokens_html(one.run.tokens)
    assert "".join(screen.tokens) == tokens_html(one.run.tokens)
    one.controls["seed"].value = 4
    one.generate().wait()
    assert "".join(screen.tokens) == tokens_html(one.run.tokens)


def test_a_view_that_opens_late_gets_the_whole(make):
    one = make().generate().wait()
    screen = Screen(one.view)
    one.view._answer(one.view, {"type": "whole"}, [])
    assert "".join(screen.tokens) == tokens_html(one.run.tokens)


def test_updates_wait_for_each_other(make, monkeypatch):
    """A clock that stands still never reaches the next update, one that leaps once reaches one more."""
    screen = Screen((one := make()).view)
    for clock, updates in ((repeat(0.0), 0), (chain([0.0], repeat(9.0)), 1), (count(), 12)):
        monkeypatch.setattr(run.time, "perf_counter", lambda clock=clock: float(next(clock)))
        screen.messages.clear()
        one.generate().wait()
        assert len(screen.messages) == updates + 1  # the last one comes when all is done


def test_stop_ends_the_thread_and_leaves_the_model_usable(make, model, tokenizer):
    one = make(max_new_tokens=200)
    before = model(input_ids=tokenizer("abc", return_tensors="pt").input_ids).logits
    stop_at(one, 5)
    assert one.stop_button.disabled
    one.generate()
    thread = one.session._thread
    one.wait()
    assert len(one.run.tokens) == 5
    assert one.run.branch.summary().endswith("stopped")
    assert not thread.is_alive()
    assert one.stop_button.disabled
    after = model(input_ids=tokenizer("abc", return_tensors="pt").input_ids).logits
    assert torch.equal(before, after)
    assert torch.is_grad_enabled()
    assert after.requires_grad


def test_stop_can_be_pressed_while_it_runs(make):
    one = make(max_new_tokens=200)
    held = Held(one.model)
    one.generate()
    assert held.at_work.wait(30)
    assert not one.stop_button.disabled
    one.stop_button.click()
    held.go_on.set()
    one.wait()
    assert len(one.run.tokens) == 1


def test_the_code_of_a_stopped_run_writes_as_much(make, model, tokenizer):
    one = make('She said "柿"', max_new_tokens=200)
    stop_at(one, 7)
    one.generate().wait()
    assert output_of(one.code, model=model, tokenizer=tokenizer) == one.text + "\n"
    assert one.view.code == one.code


def test_before_the_first_run_the_code_is_what_the_controls_would_write(make, model, tokenizer):
    one = make()
    one.controls["seed"].value = 8
    printed = output_of(one.view.code, model=model, tokenizer=tokenizer)
    assert printed == one.generate().wait().text + "\n"


def test_a_new_run_takes_the_place_of_the_old(make, monkeypatch):
    monkeypatch.setattr(session, "SECONDS_BETWEEN_UPDATES", float("inf"))
    one = make(max_new_tokens=200)
    held = Held(one.model)
    old = one.generate().run
    assert held.at_work.wait(30)
    one.controls["max_new_tokens"].value = 4
    screen = Screen(one.view)
    one.generate()
    held.hook.remove()
    held.go_on.set()
    one.wait()
    assert len(old.tokens) == 1
    assert len(one.run.tokens) == 4
    assert len(screen.messages) == 1, "nothing of the old run is shown any more"
    assert "".join(screen.tokens) == tokens_html(one.run.tokens)


def test_a_new_run_with_the_same_text_shows_it_again(make):
    one = make()
    screen = Screen(one.view)  # from the start: a quick second run may have nothing new to send
    one.generate().wait()
    one.view._answer(one.view, {"type": "choose", "index": 2}, [])
    one.generate().wait()
    assert "".join(screen.tokens) == tokens_html(one.run.tokens)


# As you type


def test_typing_runs_once_it_pauses(make, monkeypatch):
    monkeypatch.setattr(widget, "SECONDS_AFTER_TYPING", 1.0)
    one = make("", as_you_type=True)
    runs = []
    for typed in ("O", "On", "Once"):
        one.controls["prompt"].value = typed
        runs.append(one.run)
    one.wait()
    assert [len(run.tokens) for run in runs] == [0, 0, 12]
    assert one.text.startswith("Once")


def test_without_it_typing_only_shows_the_prompt(make):
    one = make()
    one.controls["prompt"].value = "Twice"
    assert one.run is None
    assert one.view.prompt == tokens_html(one.session.prompt_tokens(one.settings))
    one.as_you_type.value = True
    one.wait()
    assert one.text.startswith("Twice")


def test_it_starts_when_somebody_looks(make):
    one = make(as_you_type=True)
    assert one.run is None
    one.view._answer(one.view, {"type": "whole"}, [])
    one.wait()
    assert len(one.run.tokens) == 12


# What it shows


def test_a_text_that_the_controls_no_longer_write_is_stale(make):
    one = make().generate().wait()
    assert not one.view.stale
    one.controls["temperature"].value = 0.5
    assert one.view.stale
    one.controls["temperature"].value = 1.3
    assert not one.view.stale


def test_old_tokens_are_stale_until_the_new_ones_are_shown(make, monkeypatch):
    one = make().generate().wait()
    one.controls["temperature"].value = 0.5
    show, seen = one.view.show, []
    monkeypatch.setattr(one.view, "show", lambda tokens: (seen.append(one.view.stale), show(tokens)))
    one.generate().wait()
    assert seen[0] and not one.view.stale


def test_a_slider_that_answers_inexactly_changes_nothing(make):
    one = make(top_p=0.95).generate().wait()
    one.controls["top_p"].value = 0.9500000000000001  # what a browser sends for 0.95
    assert not one.view.stale
    assert "top_p=0.95," in one.code


def test_chat_format_is_shown(make):
    one = make("Hello")
    assert "human" not in one.view.prompt
    one.controls["chat"].value = True
    assert all(tokens_html([token]) in one.view.prompt for token in one.session.prompt_tokens(one.settings))
    assert one.generate().wait().text.startswith("human: Hello\n\nadept:")


def test_choosing_a_token_shows_its_details(make):
    one = make().generate().wait()
    one.view._answer(one.view, {"type": "choose", "index": 3}, [])
    assert nucleus_html(one.session.nucleus_at(one.branch, 3, one.settings)) in one.view.details
    assert f"rank {one.run.tokens[3].rank:,} of" in one.view.details
    one.view._answer(one.view, {"type": "choose", "index": -1}, [])
    assert one.view.details == ""
    one.view._answer(one.view, {"type": "choose", "index": 99}, [])
    assert one.view.details == ""


def test_a_prompt_that_is_too_long_is_an_error_on_the_screen(make):
    one = make("word " * 400).generate().wait()
    assert one.view.error.startswith("ValueError: a prompt of")
    assert "256 positions" in one.view.error
    assert one.stop_button.disabled
    with pytest.raises(ValueError, match="256 positions"):
        one.static()
    one.controls["prompt"].value = "word"
    assert one.view.error == ""
    assert one.generate().wait().view.error == ""


def test_nan_is_an_error_on_the_screen(make, model):
    with torch.no_grad():
        model.lm_head.weight[5] = torch.nan
    one = make().generate().wait()
    assert one.view.error.startswith("FloatingPointError: the model returned nan")
    assert isinstance(one.run.error, FloatingPointError)


def test_any_other_error_is_too(make):
    def broken(*_):
        raise RuntimeError(NASTY)

    one = make()
    one.model.register_forward_hook(broken)
    one.generate().wait()
    assert one.view.error == f"RuntimeError: {NASTY}"  # shown as text, not as HTML


def test_half_a_character_in_the_prompt_is_an_error_on_the_screen(make):
    one = make()
    one.controls["prompt"].value = "\ud83d"
    assert "surrogate" in one.view.error


# Without a kernel


def test_the_static_page_holds_the_run_and_escapes_it(make, scripted, tokenizer):
    ids = tokenizer.encode(NASTY, add_special_tokens=False)
    one = make(NASTY, model=scripted(ids), temperature=0.0, max_new_tokens=100)
    page = one.static().data
    assert "<script" not in page
    assert tokens_html(list(one.session.prompt_tokens(one.settings))) in page
    one.generate().wait()
    assert "<script>" in "".join(token.text for token in one.run.tokens)
    assert one.static().data == page


def test_a_notebook_keeps_the_page_beside_the_widget(make):
    one = make()
    assert "text/html" not in one._repr_mimebundle_()
    bundle = one.generate().wait()._repr_mimebundle_()
    assert bundle["text/html"] == one.static().data
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert bundle["text/plain"] == repr(one) == "GenerationPlayground('Once upon a time')"


def test_no_more_new_tokens_than_the_model_can_read(model, tokenizer):
    """The usual number may be too many for a small model, which nobody asked for."""
    assert GenerationPlayground(model, tokenizer, "to").settings.max_new_tokens == 100
    small = copy.deepcopy(model)
    small.config.max_position_embeddings = 16
    assert GenerationPlayground(small, tokenizer, "to").settings.max_new_tokens == 15


# Branches


def ids_of(tokenizer, branch):
    return path_ids(tokenizer, branch)[0].tolist()


def choose(one, index):
    one.view._answer(one.view, {"type": "choose", "index": index}, [])
    return [int(token) for token in re.findall(r'data-token="(\d+)"', one.view.details)]


def take(one, index, row=2):
    """Click a token of the text, and then a row of its alternatives, not the one that stands there."""
    rows = [token for token in choose(one, index) if token != one.branch.path[index].token_id]
    one.view._answer(one.view, {"type": "take", "about": f"{one.branch.number}:{index}", "token": rows[row]}, [])
    one.wait()
    assert one.run.error is None
    return rows[row]


def test_an_alternative_goes_on_from_there_and_the_old_text_stays(make, model, tokenizer):
    one = make().generate().wait()
    screen = Screen(one.view)
    one.view._answer(one.view, {"type": "whole"}, [])
    old, text = one.branch, one.text
    taken = take(one, 4)
    assert [token.token_id for token in one.branch.path[:5]] == [*(t.token_id for t in old.path[:4]), taken]
    assert one.branch.generated == 12
    assert (one.view.chosen, one.view.forced, one.view.forks) == (4, [4], [4])
    assert "".join(screen.tokens) == tokens_html(one.branch.path)
    ids = torch.tensor([ids_of(tokenizer, one.branch)])
    after = model.generate(ids[:, :-12], do_sample=True, temperature=1.3, top_p=0.95, max_new_tokens=12, seed=3)
    assert torch.equal(after, ids), "the seed begins anew behind the token that was put in"
    with torch.no_grad():
        model_says = model(input_ids=ids[:, :-13]).logits[0, -1].softmax(dim=-1)[taken]
    assert one.branch.tokens[0].probability == pytest.approx(float(model_says), rel=1e-4)
    one.branches._answer(one.branches, {"type": "select", "number": 1}, [])
    assert (one.branch, one.text) == (old, text)
    assert "".join(screen.tokens) == tokens_html(old.path)
    assert one.view.forks == [4] and one.view.forced == []


def test_taking_the_same_again_goes_back_to_it(make):
    one = make().generate().wait()
    row = take(one, 4)
    branch, count = one.branch, len(one.tree.branches)
    one.select(1)
    one.take(4, row).wait()
    assert one.branch is branch and len(one.tree.branches) == count


def test_returning_restores_what_the_controls_said_and_writes_nothing(make):
    one = make(as_you_type=True).generate().wait()
    one.as_you_type.value = False
    one.controls["temperature"].value = 0.7
    take(one, 2)
    one.as_you_type.value = True
    run = one.run
    one.select(1)
    assert one.settings == one.tree.branches[0].settings
    assert not one.view.stale and one.run is run


def test_sliders_shade_the_distribution_without_a_run(make):
    one = make().generate().wait()
    choose(one, 3)
    run, asked = one.run, []
    one.model.register_forward_hook(lambda *_: asked.append(1))
    wide = one.view.details
    one.controls["top_p"].value = 0.1
    assert one.view.details.count('class="kept"') < wide.count('class="kept"')
    assert "top-p 0.1 keeps" in one.view.details
    one.view._answer(one.view, {"type": "scale"}, [])
    assert one.view.log and one.view.details != wide
    assert one.run is run and not asked


def test_compare_writes_the_same_prompt_and_seed_as_the_controls_say(make, model, tokenizer):
    one = make().generate().wait()
    take(one, 3)
    first = one.branch
    one.controls["temperature"].value = 0.4
    one.controls["seed"].value = 99
    one.compare_button.click()
    one.wait()
    second = one.branch
    assert second.settings == replace(first.settings, temperature=0.4)
    assert (second.parent, second.fork, second.tokens[0]) == (first.parent, first.fork, first.tokens[0])
    assert "tokens agree" in one.comparison.value and one.comparison.layout.display == ""
    one.select(first)
    one.generate().wait()
    assert one.comparison.layout.display == "none"


def test_where_the_controls_say_the_same_it_compares_with_greedy(make):
    one = make()
    one.compare()
    assert "Generate a text first" in one.status.value
    one.generate().wait().compare().wait()
    assert one.branch.settings.temperature == one.settings.temperature == 0
    one.compare().wait()
    assert one.branch.settings.temperature == 1


def grown(make, **options):
    """A playground with a stopped text, a branch, one that leaves it, one by comparing, and another prompt."""
    one = make('She said "柿"', max_new_tokens=30, **options)
    stop_at(one, 9)
    one.generate().wait()
    take(one, 4)
    one.controls["temperature"].value = 1.8
    take(one, 9)
    one.compare().wait()
    one.controls["prompt"].value, one.controls["chat"].value = "Hello", True
    one.generate().wait()
    take(one, 0)
    return one


def test_the_code_of_the_tree_writes_every_branch_token_for_token(make, model, tokenizer):
    one = grown(make)
    names = {"model": model, "tokenizer": tokenizer}
    printed = output_of(one.tree_code(), **names)
    exec(one.tree_code(), names)
    assert len(one.tree.branches) == 6
    for branch in one.tree.branches:
        assert names["branches"][branch.number].tolist() == [ids_of(tokenizer, branch)]
    one.select(3)
    assert f"[3] {one.text}\n" in printed
    assert f"[3] {one.text}\n" in output_of(one.code, model=model, tokenizer=tokenizer)


def test_an_end_that_is_put_in_ends_the_text(make, model, tokenizer):
    one = make().generate().wait()
    one.take(3, tokenizer.eos_token_id).wait()
    assert len(one.branch.path) == 4 and one.run.error is None
    names = {"model": model, "tokenizer": tokenizer}
    exec(one.tree_code(), names)
    assert names["branches"][2].tolist() == [ids_of(tokenizer, one.branch)]


def test_a_text_ends_where_generate_ends_it(make, model, tokenizer):
    """At the eos of the model's generation_config, where that is another one than its config's."""
    end, config_end = 40, model.config.eos_token_id
    model.generation_config = GenerationConfig(eos_token_id=end)
    one = make(temperature=0.0).generate().wait()
    one.take(3, end).wait()
    assert [token.token_id for token in one.branch.path[3:]] == [end]
    one.select(1)
    one.take(3, config_end).wait()
    assert one.branch.generated == 12, "to this model that is no end"
    names = {"model": model, "tokenizer": tokenizer}
    exec(one.tree_code(), names)
    for branch in one.tree.branches:
        assert names["branches"][branch.number].tolist() == [ids_of(tokenizer, branch)]


@pytest.mark.parametrize("index", [-1, 12, 99_999])
def test_a_token_that_is_not_there_cannot_be_replaced(make, index):
    one = make().generate().wait()
    before = one.tree.to_json()
    with pytest.raises(IndexError, match=f"no token {index} to be replaced: the shown text has 12"):
        one.take(index, 5)
    assert one.tree.to_json() == before


def test_nor_can_it_be_replaced_by_what_is_no_token(make, tokenizer):
    with pytest.raises(IndexError, match="the shown text has 0"):
        make().take(0, 5)
    one = make().generate().wait()
    for token_id in (-1, tokenizer.vocab_size):
        with pytest.raises(IndexError, match=f"no token id {token_id}"):
            one.take(3, token_id)
    assert len(one.tree.branches) == 1


def test_a_branch_ends_with_the_context(make, model, tokenizer):
    one = make(max_new_tokens=245).generate().wait()
    take(one, 200)
    assert len(ids_of(tokenizer, one.branch)) == 256
    names = {"model": model, "tokenizer": tokenizer}
    exec(one.tree_code(), names)
    assert names["branches"][2].tolist() == [ids_of(tokenizer, one.branch)]


def test_a_saved_tree_is_shown_again(make, model, tokenizer):
    one = grown(make)
    sent = []
    one.branches.send = sent.append
    one.branches._answer(one.branches, {"type": "json"}, [])
    one.branches._answer(one.branches, {"type": "python"}, [])
    assert [message["file"] for message in sent] == ["branches.json", "branches.py"]
    again = GenerationPlayground.from_json(model, tokenizer, sent[0]["text"])
    assert again.tree.to_json() == one.tree.to_json()
    assert again.tree_code() == one.tree_code()
    one.select(2), again.select(2)
    assert again.text == one.text
    index = 6
    kept, read_again = one.session.logits_at(one.branch, index), again.session.logits_at(again.branch, index)
    torch.testing.assert_close(read_again, kept, rtol=1e-4, atol=1e-4)
    assert again.static().data.count('role="treeitem"') == 6


def test_a_tree_of_another_tokenizer_is_refused_and_shown_why(make):
    one = make().generate().wait()
    other = one.tree.to_json().replace('"piece": "', '"piece": "~')
    one.branches._answer(one.branches, {"type": "open", "text": other}, [])
    assert one.view.error.startswith("ValueError: the tree is of another tokenizer")
    one.branches._answer(one.branches, {"type": "open", "text": "nonsense"}, [])
    assert "this is no tree of texts: it cannot be read as JSON" in one.view.error
    assert len(one.tree.branches) == 1


def test_branches_are_named_and_removed(make):
    one = make().generate().wait()
    take(one, 4)
    one.branches._answer(one.branches, {"type": "rename", "number": 2, "text": NASTY}, [])
    assert NASTY not in one.branches.html and "&lt;script&gt;" in one.branches.html
    one.branches._answer(one.branches, {"type": "remove", "number": 2}, [])
    assert [one.branch] == one.tree.branches
    one.branches._answer(one.branches, {"type": "remove", "number": 1}, [])
    assert "only text" in one.view.error and len(one.tree.branches) == 1


def test_typing_replaces_its_own_text_and_keeps_what_has_branches(make, monkeypatch):
    monkeypatch.setattr(widget, "SECONDS_AFTER_TYPING", 0.0)
    one = make("O", as_you_type=True)
    one.generate().wait()
    one.controls["prompt"].value = "On"
    one.wait()
    assert len(one.tree.branches) == 1
    take(one, 1)
    one.controls["prompt"].value = "Once"
    one.wait()
    assert [branch.settings.prompt for branch in one.tree.branches] == ["On", "On", "Once"]


def test_the_meter_counts_positions_and_bytes(make):
    one = make()
    prompt = len(one.session.prompt_tokens(one.settings))
    one.generate().wait()
    config = one.model.config
    full = 2 * config.num_hidden_layers * config.hidden_size * 256 * 4
    assert f"{prompt + 12} of 256 tokens" in one.meter.value
    assert f"of {in_bytes(full)}" in one.meter.value


def test_a_click_on_alternatives_that_are_no_longer_shown_takes_nothing(make):
    one = make().generate().wait()
    rows = choose(one, 2)
    choose(one, 5)
    one.view._answer(one.view, {"type": "take", "about": "1:2", "token": rows[0]}, [])
    assert len(one.tree.branches) == 1
    take(one, 5)
    one.view._answer(one.view, {"type": "take", "about": "1:5", "token": rows[0]}, [])
    assert len(one.tree.branches) == 2


def test_a_token_put_in_keeps_the_distribution_it_was_taken_from(make):
    one = make().generate().wait()
    take(one, 4)
    asked = []
    one.model.register_forward_hook(lambda *_: asked.append(1))
    assert one.view.details != ""
    one.controls["top_p"].value = 0.5
    assert "top-p 0.5" in one.view.details and not asked
    assert one.session.logits.get(one.branch, 4) is not None


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda branch: branch["settings"].update(temperature="hot"), "as its temperature, and has 'hot'"),
        (lambda branch: branch["tokens"][0].update(probability="much"), "as its probability, and has 'much'"),
        (lambda branch: branch.update(tokens=branch["tokens"] * 500), "tokens with its prompt, and the model 256"),
        (lambda branch: branch.update(number=None), "as its number"),
    ],
)
def test_a_tree_that_is_refused_leaves_the_present_one(make, spoil, message):
    one = make().generate().wait()
    before, text = one.tree, one.text
    stored = json.loads(one.tree.to_json())
    spoil(stored["branches"][0])
    one.branches._answer(one.branches, {"type": "open", "text": json.dumps(stored)}, [])
    assert one.view.error.startswith("ValueError: ") and message in one.view.error
    assert one.tree is before and one.text == text
    assert one.generate().wait().run.error is None


def test_a_tree_of_another_model_is_shown_with_a_word(make, model, tokenizer):
    one = make().generate().wait()
    own = one.tree.to_json()
    word = "another model wrote"
    assert word not in GenerationPlayground.from_json(model, tokenizer, own).status.value
    with torch.no_grad():
        model.lm_head.weight *= 1.01
    again = GenerationPlayground.from_json(model, tokenizer, own)
    assert word in again.status.value and again.text == one.text
    assert again.tree.to_json() == own, "it stays the other model's"
    assert word not in make("Twice").generate().wait().status.value


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": 7.0},
        {"temperature": math.nan},
        {"seed": 2**31},
        {"seed": -5},
        {"top_k": -1},
        {"max_new_tokens": 100_000},
    ],
)
def test_settings_that_no_control_shows_are_refused(make, wrong):
    [name] = wrong
    with pytest.raises(ValueError, match=f"{name} is .*; the playground takes"):
        make(**wrong)
