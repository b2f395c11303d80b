"""transformers.Trainer, which accelerate drives, against a loop written out."""

import pytest
import torch

from persimmon_lab.classification import PersimmonForSequenceClassification
from tests.clients.clients import mini, rows
from tests.models import ids, tiny

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

STEPS, RATE = 3, 1e-3


def examples() -> list[dict[str, torch.Tensor]]:
    return [{"input_ids": row, "labels": row} for row in rows()]


def trainer(folder, model=None, **options):
    arguments = {
        "max_steps": STEPS, "per_device_train_batch_size": 8, "learning_rate": RATE, "lr_scheduler_type": "constant",
        "logging_steps": 1, "report_to": [], "use_cpu": True, "disable_tqdm": True, "save_strategy": "no", "seed": 0,
    }  # fmt: skip
    return transformers.Trainer(
        model=model or mini(layers=2),
        args=transformers.TrainingArguments(output_dir=str(folder), **arguments | options),
        train_dataset=examples(),
        eval_dataset=examples(),
    )


def losses(ran) -> list[float]:
    return [entry["loss"] for entry in ran.state.log_history if "loss" in entry]


@pytest.fixture(scope="module")
def by_hand() -> list[float]:
    """The loss before each step of AdamW as Trainer sets it up: clipped to a norm of 1, no weight decay."""
    model = mini(layers=2).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
    seen = []
    for _ in range(STEPS):
        loss = model(rows(), labels=rows()).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        seen.append(loss.item())
    return seen


def test_three_steps(tmp_path, by_hand):
    ran = trainer(tmp_path)
    ran.train()
    assert losses(ran) == pytest.approx(by_hand, abs=2e-4)
    assert by_hand[-1] < by_hand[0] - 0.1


def test_accumulation(tmp_path, by_hand):
    """Four batches of two are one of eight."""
    ran = trainer(tmp_path, per_device_train_batch_size=2, gradient_accumulation_steps=4)
    ran.train()
    assert losses(ran) == pytest.approx(by_hand, abs=2e-4)


def test_accumulation_of_unequal_rows(tmp_path):
    """The loss of a step is the mean over its tokens, and not the mean of its batches' means."""
    labels = rows().clone()
    for index, row in enumerate(labels):
        row[: 7 - index % 4 * 2] = -100  # one to seven tokens are learned
    model = mini(layers=2)
    with torch.no_grad():
        expected = model(rows(), labels=labels).loss.item()
        means = [model(one[None], labels=label[None]).loss.item() for one, label in zip(rows(), labels)]
    ran = trainer(tmp_path, model=model, per_device_train_batch_size=1, gradient_accumulation_steps=8, max_steps=1)
    ran.train_dataset = [{"input_ids": row, "labels": label} for row, label in zip(rows(), labels)]
    ran.train()
    assert losses(ran) == pytest.approx([expected], abs=2e-4)
    assert abs(sum(means) / len(means) - expected) > 0.01, "the two means differ here"


def test_gradient_checkpointing(tmp_path, by_hand):
    ran = trainer(tmp_path, gradient_checkpointing=True)
    ran.train()
    assert losses(ran) == pytest.approx(by_hand, abs=2e-4)
    assert ran.model.model.gradient_checkpointing


def test_bfloat16(tmp_path, by_hand):
    """Autocast: the weights stay in float32."""
    ran = trainer(tmp_path, bf16=True)
    ran.train()
    assert losses(ran) == pytest.approx(by_hand, rel=2e-2)
    assert ran.model.dtype == torch.float32


def test_resume(tmp_path):
    """Three steps at once, or one and two more after an interruption: the same weights."""
    whole = trainer(tmp_path / "whole")
    whole.train()
    first = trainer(tmp_path / "parts", save_strategy="steps", save_steps=1, max_steps=1)
    first.train()
    second = trainer(tmp_path / "parts")
    second.train(resume_from_checkpoint=str(tmp_path / "parts" / "checkpoint-1"))
    assert second.state.global_step == STEPS
    for name, weight in whole.model.state_dict().items():
        torch.testing.assert_close(
            second.model.state_dict()[name], weight, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_checkpoint_is_a_model(tmp_path):
    """Of a model that is no class of transformers Trainer writes the weights alone: the configuration is given."""
    ran = trainer(tmp_path, save_strategy="steps", save_steps=STEPS)
    ran.train()
    loaded = type(ran.model).from_pretrained(tmp_path / f"checkpoint-{STEPS}", config=ran.model.config)
    for name, weight in ran.model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name


def test_evaluate(tmp_path):
    model = mini(layers=2).eval()
    ran = trainer(tmp_path, model=model, per_device_eval_batch_size=4)
    with torch.no_grad():
        expected = model(rows(), labels=rows())
    assert ran.evaluate()["eval_loss"] == pytest.approx(expected.loss.item(), abs=1e-4)


def test_predict_gives_logits_alone(tmp_path):
    """No keys and values among the predictions: config.keys_to_ignore_at_inference names them."""
    model = mini(layers=2).eval()
    predictions = trainer(tmp_path, model=model, per_device_eval_batch_size=4).predict(examples()).predictions
    with torch.no_grad():
        expected = model(rows()).logits
    torch.testing.assert_close(torch.as_tensor(predictions), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["single_label_classification", "multi_label_classification", "regression"])
def test_a_classifier_accumulates_batches_of_unequal_size(tmp_path, kind):
    """The loss of a step is the mean over its texts: eight are read as three, three and two."""
    labels = {
        "single_label_classification": torch.arange(8) % 3,
        "multi_label_classification": (torch.arange(24) % 5 < 2).float().unflatten(0, (8, 3)),
        "regression": 10.0 ** torch.arange(8) / 1e4,
    }[kind]
    count = 1 if kind == "regression" else 3
    model = tiny(PersimmonForSequenceClassification, num_labels=count, problem_type=kind, pad_token_id=0)
    texts = ids(8, 8)
    with torch.no_grad():
        model.score.weight *= 20  # a classifier with opinions, so that the texts' losses differ
        expected = model(texts, labels=labels).loss.item()
        means = [model(some, labels=their).loss.item() for some, their in zip(texts.split(3), labels.split(3))]
    ran = trainer(tmp_path, model=model, per_device_train_batch_size=3, gradient_accumulation_steps=3, max_steps=1)
    ran.train_dataset = [{"input_ids": row, "labels": label} for row, label in zip(texts, labels)]
    ran.get_train_dataloader = lambda: ran.accelerator.prepare(
        torch.utils.data.DataLoader(ran.train_dataset, batch_size=3, collate_fn=ran.data_collator)
    )
    ran.train()
    assert losses(ran) == pytest.approx([expected], rel=1e-3)
    assert abs(sum(means) / 3 - expected) > 0.005 * expected, "the mean of means is another"
