"""What is computed, the same way by three libraries: transformers 4.37.2, transformers 5.x and persimmon_lab.

A case is a small model, its arguments and what to do with them; `compute` takes the library as an argument. Weights and
token ids come from raw PCG64 integers, whose stream numpy guarantees, so nobody stores them: only the numbers that
4.37.2 made are committed. Weights are far from their initial values (no bias is zero, no LayerNorm is the identity), so
that a forgotten bias or a swapped norm moves the result.

Imports numpy and torch only, so that it also runs where persimmon_lab is not installed.
"""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor, nn

REFERENCE = Path(__file__).with_name("reference_4.37.2.safetensors")  # written by make_reference.py
BATCH, LENGTH, CONTEXT, VOCAB, HIDDEN = 2, 9, 16, 61, 48

BASE_CONFIG = {
    "vocab_size": VOCAB,
    "hidden_size": HIDDEN,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "max_position_embeddings": CONTEXT,
    "rope_theta": 25000.0,  # by name: transformers 5.x has another default
    "bos_token_id": 1,
    "eos_token_id": 2,
}

Arguments = dict[str, Tensor]
Results = dict[str, Tensor]


def uniform(name: str, *shape: int) -> Tensor:
    """Numbers in [-1, 1) that depend on the name and the shape alone."""
    raw = np.random.PCG64(zlib.crc32(name.encode())).random_raw(int(np.prod(shape)))
    return torch.from_numpy((raw >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1.0).reshape(shape).float()


def token_ids(name: str, batch: int = BATCH, length: int = LENGTH, lowest: int = 3) -> Tensor:
    """Ids in [lowest, VOCAB): by default none of them is padding, a beginning or an end."""
    return (lowest + (uniform(name, batch, length) + 1) / 2 * (VOCAB - lowest)).long()


@torch.no_grad()
def fill(model: nn.Module) -> nn.Module:
    """Gives every parameter its number by name; pre-activations, scores and logits get a variance near one."""
    for name, parameter in model.named_parameters():
        name = name.removeprefix("model.")
        noise = uniform(name, *parameter.shape)
        if "layernorm.weight" in name:
            parameter.copy_(1 + 0.5 * noise)
        elif parameter.ndim == 1:
            parameter.copy_(0.5 * noise)
        elif name == "embed_tokens.weight":
            parameter.copy_(0.5 * noise)
        else:
            parameter.copy_((3 / parameter.shape[1]) ** 0.5 * noise)
    return model


# What to do with a model. Each returns named tensors and leaves nothing out that the library returns.


def collect(outputs, suffix: str = "") -> Results:
    """The tensors of one forward: hidden_states.0, attentions.1, keys.0, ... and logits, loss or last_hidden_state."""
    results = {}
    for name, value in outputs.items():
        if isinstance(value, Tensor):
            results[name + suffix] = value
        elif name == "past_key_values":
            for layer, (key, value_states, *_) in enumerate(value):
                results[f"keys.{layer}{suffix}"], results[f"values.{layer}{suffix}"] = key, value_states
        else:
            results |= {f"{name}.{layer}{suffix}": tensor for layer, tensor in enumerate(value) if tensor is not None}
    return results


@torch.no_grad()
def forward(model: nn.Module, arguments: Arguments) -> Results:
    return collect(model(**arguments, output_hidden_states=True))


def forward_in_training_mode(model: nn.Module, arguments: Arguments) -> Results:
    """Deterministic only where the dropout rates are 0 or 1; a rate of 1 tells where dropout sits."""
    return forward(model.train(), arguments)


@torch.no_grad()
def chunks(model: nn.Module, arguments: Arguments, sizes: tuple[int, ...] = (4, 1, 3, 1)) -> Results:
    """The same tokens in pieces; whatever cache a call returns goes into the next."""
    results, cache, start = {}, None, 0
    for size in sizes:
        stop = start + size
        piece = {name: value[:, start:stop] for name, value in arguments.items() if name != "attention_mask"}
        if "attention_mask" in arguments:
            piece["attention_mask"] = arguments["attention_mask"][:, :stop]
        outputs = model(**piece, past_key_values=cache, use_cache=True)
        results |= {f"logits@{start}": outputs.logits}
        results |= {f"attentions.{layer}@{start}": each for layer, each in enumerate(outputs.attentions or ())}
        cache, start = outputs.past_key_values, stop
    return results | collect({"past_key_values": cache})


def gradients(model: nn.Module, arguments: Arguments) -> Results:
    outputs = model(**arguments)
    outputs.loss.backward()
    return {"loss": outputs.loss, "logits": outputs.logits} | {
        f"gradient.{name}": parameter.grad for name, parameter in model.named_parameters()
    }


def training(model: nn.Module, arguments: Arguments) -> Results:
    """Five AdamW steps.

    eps is large on purpose: the loss does not depend on what a bias adds to the unrotated channels of every key, so
    that gradient is rounding noise, and Adam with a tiny eps would blow noise up to full steps.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1, eps=1e-4)
    losses = []
    for step in range(5):
        ids = token_ids(f"training {step}")
        loss = model(input_ids=ids, labels=ids, **arguments).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return {"losses": torch.stack(losses)} | {f"trained.{name}": each for name, each in model.named_parameters()}


def greedy(model: nn.Module, arguments: Arguments) -> Results:
    """Ids, and the scores that chose them until the first text of the batch ends."""
    outputs = model.generate(
        **arguments, max_new_tokens=12, do_sample=False, return_dict_in_generate=True, output_scores=True
    )
    new_ids = outputs.sequences[:, -len(outputs.scores) :]
    going = int((new_ids != model.config.eos_token_id).all(0).cumprod(0).sum()) + 1
    return {"sequences": outputs.sequences} | {
        f"scores.{step}": each for step, each in enumerate(outputs.scores[:going])
    }


# The arguments of the cases.


def text(name: str = "text", **shape: int) -> Callable[[], Arguments]:
    return lambda: {"input_ids": token_ids(name, **shape)}


def masked(*rows: str, positions: bool = False, labels: bool = False) -> Callable[[], Arguments]:
    """Rows of 0 and 1; padding carries id 0. With `positions`, the positions that `generate` counts from a mask."""

    def arguments() -> Arguments:
        mask = torch.tensor([[int(bit) for bit in row] for row in rows])
        ids = token_ids("masked", *mask.shape) * mask
        given = {"input_ids": ids, "attention_mask": mask}
        if positions:
            given["position_ids"] = (mask.cumsum(-1) - 1).masked_fill(mask == 0, 1)
        if labels:
            given["labels"] = ids.masked_fill(mask == 0, -100)
        return given

    return arguments


def labelled(labels: Callable[[], Tensor], **shape: int) -> Callable[[], Arguments]:
    return lambda: {"input_ids": token_ids("labelled", **shape), "labels": labels()}


def causal_labels() -> Tensor:
    labels = token_ids("labels")
    labels[0, 2], labels[1, -1] = -100, -100
    return labels


def padded_right(labels: Callable[[], Tensor] | None = None) -> Callable[[], Arguments]:
    """Three texts of different lengths for the classifier, with pad id 0 after the shorter ones."""

    def arguments() -> Arguments:
        ids = token_ids("padded", 3, LENGTH)
        ids[0, 5:], ids[2, 7:] = 0, 0
        given = {"input_ids": ids, "attention_mask": (ids != 0).long()}
        return given | ({"labels": labels()} if labels else {})

    return arguments


LEFT = ("000111111", "111111111")
RIGHT = ("111111000", "111111111")
HOLES = ("110110101", "011011111")


@dataclass(frozen=True)
class Case:
    name: str
    config: dict = field(default_factory=dict)
    arguments: Callable[[], Arguments] = text()
    model: str = "PersimmonForCausalLM"
    run: Callable[[nn.Module, Arguments], Results] = forward
    in_reference: bool = True
    live: tuple[str, ...] = ("eager", "sdpa")  # the attention implementations of transformers 5.x that are right here


def classifier(name: str, arguments: Callable[[], Arguments], **config) -> Case:
    return Case(name, {"pad_token_id": 0, "num_labels": 4} | config, arguments, "PersimmonForSequenceClassification")


def cases() -> Iterator[Case]:
    yield Case("rotary quarter", {"partial_rotary_factor": 0.25})
    yield Case("rotary half", {"partial_rotary_factor": 0.5})
    yield Case("rotary three quarters", {"partial_rotary_factor": 0.75})
    yield Case("rotary whole", {"partial_rotary_factor": 1.0})
    yield Case("theta 100", {"rope_theta": 100.0})
    yield Case("no qk layernorm", {"qk_layernorm": False})
    yield Case("large epsilon", {"layer_norm_eps": 0.1})
    yield Case("tied embeddings", {"tie_word_embeddings": True})
    for activation in ("relu2", "gelu", "gelu_new", "silu", "relu"):
        yield Case(f"activation {activation}", {"hidden_act": activation, "num_hidden_layers": 1})
    for heads in (1, 3, 5):
        yield Case(f"{heads} heads", {"num_attention_heads": heads, "hidden_size": 16 * heads})
    yield Case("one token", {}, text(length=1))
    yield Case("bare model", {}, text(), "PersimmonModel")

    linear, dynamic = ({"rope_scaling": {"type": kind, "factor": 2.0}} for kind in ("linear", "dynamic"))
    yield Case("linear scaling", linear)
    yield Case("dynamic scaling inside the context", dynamic)
    yield Case("dynamic scaling beyond the context", dynamic, text(length=CONTEXT + 4))
    yield Case("beyond the context", {}, text(length=CONTEXT + 4))

    yield Case("left padding", {}, masked(*LEFT))
    yield Case("right padding", {}, masked(*RIGHT))
    yield Case("holes in the mask", {}, masked(*HOLES))
    yield Case("left padding, counted positions", {"pad_token_id": 0}, masked(*LEFT, positions=True))
    yield Case(
        "custom positions",
        {},
        lambda: {
            "input_ids": token_ids("text"),
            "position_ids": torch.tensor([[3, 4, 5, 6, 7, 2, 2, 0, 8], [0, 2, 4, 6, 8, 1, 3, 5, 7]]),
        },
    )
    yield Case(
        "custom positions past the length",
        {},
        lambda: {"input_ids": token_ids("text"), "position_ids": torch.tensor([[0, 1, 4, 5, 9, 10, 11, 14, 15]])},
        in_reference=False,  # 4.37.2 cuts its table at the number of keys and fails
    )
    yield Case("input embeddings", {}, lambda: {"inputs_embeds": uniform("embeddings", BATCH, LENGTH, HIDDEN)})

    yield Case("chunks", {}, run=chunks)
    yield Case("chunks of a padded text", {}, masked(*LEFT, positions=True), run=chunks)
    yield Case(
        "chunks across the context, dynamic scaling",
        dynamic,
        text(length=CONTEXT + 4),
        run=lambda model, arguments: chunks(model, arguments, sizes=(7, 7, 1, 5)),
    )

    yield Case("hidden dropout 1", {"hidden_dropout": 1.0}, run=forward_in_training_mode)
    yield Case("attention dropout 1", {"attention_dropout": 1.0}, run=forward_in_training_mode)
    yield Case("dropout 1, evaluated", {"attention_dropout": 1.0, "hidden_dropout": 1.0})

    yield Case("causal loss", {}, labelled(causal_labels))
    yield classifier("classes, padded texts", padded_right())
    yield classifier("classes, no pad id", text(batch=1), pad_token_id=None)
    yield classifier("classes, embeddings", lambda: {"inputs_embeds": uniform("embeddings", BATCH, LENGTH, HIDDEN)})
    yield classifier("regression", padded_right(lambda: uniform("targets", 3)), num_labels=1)
    yield classifier("regression of several", padded_right(lambda: uniform("targets", 3, 4)), problem_type="regression")
    yield classifier("single label", padded_right(lambda: torch.tensor([3, 0, 1])))
    yield classifier(
        "single label by name",
        padded_right(lambda: torch.tensor([3, 0, 1])),
        problem_type="single_label_classification",
    )
    yield classifier("multi label", padded_right(lambda: (uniform("targets", 3, 4) > 0).float()))

    pad_inside = int(token_ids("masked")[0, 0])  # its embedding is used, but gets no gradient
    yield Case("gradients", {"pad_token_id": pad_inside}, masked(*RIGHT, labels=True), run=gradients)
    yield Case(
        "gradients, left padding",
        {"num_hidden_layers": 1},
        masked(*LEFT, labels=True),
        run=gradients,
        live=("eager",),  # the fused kernel's gradient of a query that sees nothing is wrong
    )
    yield Case(
        "gradients, tied, no qk layernorm",
        {"tie_word_embeddings": True, "qk_layernorm": False, "num_hidden_layers": 1},
        labelled(causal_labels),
        run=gradients,
    )
    yield Case(
        "gradients, classifier",
        {"pad_token_id": 0, "num_labels": 4, "num_hidden_layers": 1},
        padded_right(lambda: torch.tensor([3, 0, 1])),
        "PersimmonForSequenceClassification",
        gradients,
    )
    yield Case("five AdamW steps", {"num_hidden_layers": 1}, dict, run=training)

    # The end ids are ones that come up: the first text ends early, the second while the other goes on.
    room = {"max_position_embeddings": 32, "pad_token_id": 0}
    yield Case("greedy", room | {"eos_token_id": 45}, text(batch=1), run=greedy)
    yield Case("greedy, left padding", room | {"eos_token_id": 3}, masked(*LEFT), run=greedy)


CASES = {case.name: case for case in cases()}


def compute(
    case: Case, library: ModuleType, dtype: torch.dtype = torch.float32, attn_implementation: str | None = None
) -> Results:
    """One case by one library, a fresh model each time. Attentions are asked for except under sdpa, which has none."""
    chosen = {"output_attentions": attn_implementation != "sdpa"}
    if attn_implementation is not None:
        chosen["attn_implementation"] = attn_implementation
    config = library.PersimmonConfig(**BASE_CONFIG | case.config | chosen)
    model = fill(getattr(library, case.model)(config)).eval()
    for parameter in model.parameters():
        # Not model.to(dtype), which would round the inverse frequencies that transformers keeps in buffers.
        parameter.data = parameter.data.to(dtype)
    arguments = {
        name: given.to(dtype) if given.is_floating_point() else given for name, given in case.arguments().items()
    }
    return {name: tensor.detach() for name, tensor in case.run(model, arguments).items()}
