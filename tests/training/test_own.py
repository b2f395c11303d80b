"""Parting one's own texts: nothing that is held out is training as well."""

import pytest

from persimmon_lab import load_mini
from persimmon_lab.training.own import split_paragraphs, train_on

PARAGRAPHS = [f"Paragraph {number}. " + f"word{number} " * 250 for number in range(12)]


def paragraphs(documents):
    return {" ".join(paragraph.split()) for document in documents for paragraph in document.text.split("\n\n")}


def said_twice(folder, way):
    first, second = folder / "a.txt", folder / "b.txt"
    content = "\n\n".join(PARAGRAPHS)
    first.write_text(content)
    if way == "the same file":
        return [first, first]
    if way == "within one file":
        first.write_text(f"{content}\n\n{content}")
        return [first]
    second.write_text(content if way == "another name" else content.replace(" ", "  ").replace("\n", "\r\n"))
    return [first, second]


@pytest.mark.parametrize("way", ["the same file", "another name", "within one file", "other white space"])
@pytest.mark.parametrize("seed", range(3))
def test_what_is_held_out_is_not_taught(tmp_path, way, seed):
    with pytest.warns(UserWarning, match="12 of 24 paragraphs were said before"):
        training, held_out = split_paragraphs(said_twice(tmp_path, way), seed)
    assert held_out
    assert training
    assert not paragraphs(held_out) & paragraphs(training)
    assert len(paragraphs(held_out) | paragraphs(training)) == 12


def test_one_text_said_twice_leaves_nothing_to_hold_out(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(PARAGRAPHS[0])
    with pytest.raises(ValueError, match="without the 1 paragraphs said before"):
        split_paragraphs([path, path], seed=0)


SMALL = {"layers": 1, "hidden": 32, "context": 16, "vocabulary": 400, "progress": False}


@pytest.fixture
def texts(tmp_path):
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    first.write_text("\n\n".join(f"The {n} cats of house {n} sat on mat {n * n}." for n in range(200)))
    second.write_text("\n\n".join(f"A dog, number {n}, ran {n + 3} times round tree {n * 7}." for n in range(200)))
    return first, second


def weights(out):
    return (out / "model.safetensors").read_bytes()


def test_a_folder_of_something_else_is_refused(tmp_path, texts):
    out = tmp_path / "out"
    load_mini()[0].save_pretrained(out)
    before = weights(out)
    with pytest.raises(ValueError, match="holds something that is no run of train text"):
        train_on([texts[0]], out, steps=1, **SMALL)
    assert weights(out) == before and sorted(path.name for path in out.iterdir()) == [
        "config.json", "generation_config.json", "model.safetensors"
    ]  # fmt: skip


def test_a_run_of_other_texts_is_refused(tmp_path, texts):
    out = tmp_path / "out"
    train_on([texts[0]], out, steps=2, **SMALL)
    before = weights(out)
    for wrong, told in (
        ({}, "another texts"),
        ({"vocabulary": 380}, "another vocabulary"),
        ({"steps": 1}, "more than the 1"),
    ):
        given = [texts[1] if not wrong else texts[0]]
        with pytest.raises(ValueError, match=told):
            train_on(given, out, **{"steps": 2, **SMALL, **wrong})
    assert weights(out) == before
    train_on([texts[0]], out, steps=2, **SMALL)
    assert weights(out) == before, "the same run again"


def test_the_held_out_text_is_read_in_rows_that_the_model_knows(tmp_path, texts, recwarn):
    train_on([texts[0]], tmp_path / "out", steps=2, **SMALL)
    assert not [str(warning.message) for warning in recwarn if "longer than" in str(warning.message)]
