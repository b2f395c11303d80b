"""Parting one's own texts: nothing that is held out is training as well."""

import pytest

from persimmon_lab.training.own import split_paragraphs

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
