"""A small model decodes with one thread, since a team would only wait for itself, and leaves the number as it was."""

import threading

import pytest
import torch

from persimmon_lab import PersimmonConfig
from persimmon_lab.generation.engines import threads
from persimmon_lab.generation.engines.threads import threads_for_steps, working_threads

CPU = torch.device("cpu")
IDS = torch.tensor([[5, 6, 7]])
LONG = torch.arange(1, 1 + threads.LITTLE + 1)[None]  # one more than is little


def elsewhere(work):
    """What `work` returns in another thread."""
    found = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    return found[0]


@pytest.fixture
def two():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def counting_model(tiny_model):
    """A model, and the numbers of threads that its layers were run with."""
    model, seen = tiny_model(), []
    model.model.layers[0].register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    return model, seen


def test_one_thread_elsewhere_and_as_before_afterwards(two, counting_model):
    model, seen = counting_model
    after = elsewhere(lambda: (model.generate(LONG, max_new_tokens=3, eos_token_id=None), torch.get_num_threads())[1])
    assert seen == [1, 1, 1] and after == 2 == torch.get_num_threads()


def test_in_the_main_thread_what_is_long_is_read_by_all(two, counting_model):
    model, seen = counting_model
    model.generate(LONG, max_new_tokens=3, eos_token_id=None)
    assert seen == [2, 1, 1] and torch.get_num_threads() == 2
    seen.clear()
    model.generate(IDS.repeat(1 + threads.LITTLE, 1), max_new_tokens=2, eos_token_id=None)
    assert seen == [2, 2]  # every row counts


def test_beams_too(two, counting_model):
    model, seen = counting_model
    elsewhere(lambda: model.generate(IDS, max_new_tokens=3, num_beams=2))
    assert set(seen) == {1}


def test_large_models_keep_theirs(two, counting_model, monkeypatch):
    model, seen = counting_model
    monkeypatch.setattr(threads, "FEW", 100)
    model.generate(IDS, max_new_tokens=2, eos_token_id=None)
    elsewhere(lambda: model.generate(IDS, max_new_tokens=2, eos_token_id=None))
    assert set(seen) == {2}


def test_the_choice_is_by_the_size_of_the_layers():
    mini = PersimmonConfig(hidden_size=256, intermediate_size=1024, num_hidden_layers=8, num_attention_heads=8)
    assert elsewhere(lambda: threads_for_steps(mini, CPU, 1000)) == 1
    assert [threads_for_steps(mini, CPU, n) for n in (1, threads.LITTLE, threads.LITTLE + 1)] == [1, 1, None]
    assert elsewhere(lambda: threads_for_steps(PersimmonConfig.persimmon_8b(), CPU, 1)) is None
    assert elsewhere(lambda: threads_for_steps(mini, torch.device("cuda"), 1)) is None


def test_the_number_comes_back_after_an_error(two):
    with pytest.raises(KeyError), working_threads(1):
        assert torch.get_num_threads() == 1
        raise KeyError
    assert torch.get_num_threads() == 2
    with working_threads(None):
        assert torch.get_num_threads() == 2
