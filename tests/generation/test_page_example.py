"""The example of the model's documentation page, with only its imports and its path changed."""

from pathlib import Path

from persimmon_lab.tokenizer import PersimmonTokenizer

VOCABULARY = Path(__file__).parents[1] / "fixtures" / "tokenizer" / "tokenizer.model"


def test_the_page_s_example(tiny_model, tmp_path, monkeypatch):
    checkpoint = PersimmonTokenizer(VOCABULARY)
    checkpoint.save_pretrained(tmp_path / "persimmon-tiny")
    tiny_model(vocab_size=len(checkpoint), eos_token_id=None).save_pretrained(tmp_path / "persimmon-tiny")
    monkeypatch.chdir(tmp_path)

    from persimmon_lab import PersimmonForCausalLM
    from persimmon_lab.tokenizer import PersimmonTokenizer as AutoTokenizer

    model = PersimmonForCausalLM.from_pretrained("persimmon-tiny")
    tokenizer = AutoTokenizer.from_pretrained("persimmon-tiny")

    prompt = "human: Hey, what should I eat for dinner?"
    inputs = tokenizer(prompt, return_tensors="pt")

    # Generate
    generate_ids = model.generate(inputs.input_ids, max_length=30)
    text = tokenizer.batch_decode(generate_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)[0]

    assert generate_ids.shape == (1, 30)
    assert text.startswith(prompt)
    assert len(text) > len(prompt)
