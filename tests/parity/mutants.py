"""Bugs that look right, and the parity cases that catch each of them.

    python -m tests.parity.mutants

plants every one of them in a copy of the package, runs the cases against the stored reference and prints which case
tells. It fails when one slips through, when a planted bug crashes (then it teaches nothing), or when the text that it
replaces is no longer there.
"""

import importlib
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
from safetensors.torch import load_file

from tests.parity.cases import CASES, REFERENCE, compute
from tests.parity.compare import largest_difference
from tests.tolerances import TOLERANCE

PACKAGE = Path(__file__).parents[2] / "persimmon_lab"


@dataclass(frozen=True)
class Mutant:
    name: str
    file: str
    edits: tuple[tuple[str, str], ...]  # (old text, which stands once in the file, new text)


NORM_THEN_ROTARY = """\
        if self.qk_layernorm:
            query, key = self.q_layernorm(query), self.k_layernorm(key)
        query = self.rotated_query(apply_rotary(query, cos, sin))
        key = self.rotated_key(apply_rotary(key, cos, sin))
"""
ROTARY_THEN_NORM = """\
        query, key = apply_rotary(query, cos, sin), apply_rotary(key, cos, sin)
        if self.qk_layernorm:
            query, key = self.q_layernorm(query), self.k_layernorm(key)
"""

MUTANTS = [
    Mutant(
        "query, key, value laid out (three head channel)",
        "attention.py",
        (("batch position (head three channel) ->", "batch position (three head channel) ->"),),
    ),
    Mutant("query/key norm after rotary", "attention.py", ((NORM_THEN_ROTARY, ROTARY_THEN_NORM),)),
    Mutant(
        "query and key norm swapped",
        "attention.py",
        (("self.q_layernorm(query), self.k_layernorm(key)", "self.k_layernorm(query), self.q_layernorm(key)"),),
    ),
    Mutant(
        "query norm with another epsilon",
        "attention.py",
        (
            (
                "self.q_layernorm = nn.LayerNorm(config.head_dim, eps=config.layer_norm_eps)",
                "self.q_layernorm = nn.LayerNorm(config.head_dim)",
            ),
        ),
    ),
    Mutant(
        "final norm with another epsilon",
        "model.py",
        (
            (
                "self.final_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)",
                "self.final_layernorm = nn.LayerNorm(config.hidden_size)",
            ),
        ),
    ),
    Mutant(
        "no bias in query_key_value",
        "attention.py",
        (
            (
                "nn.Linear(config.hidden_size, 3 * config.hidden_size)",
                "nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=False)",
            ),
        ),
    ),
    Mutant(
        "no bias in dense_4h_to_h",
        "mlp.py",
        (
            (
                "nn.Linear(config.intermediate_size, config.hidden_size)",
                "nn.Linear(config.intermediate_size, config.hidden_size, bias=False)",
            ),
        ),
    ),
    Mutant("scores not scaled", "attention.py", (("/ math.sqrt(query.shape[-1])", ""),)),
    Mutant(
        "mask after the softmax",
        "attention.py",
        (
            ("products / math.sqrt(query.shape[-1]) + mask", "products / math.sqrt(query.shape[-1])"),
            (
                "attention_pattern(self.scores(attention_scores(query, key, mask)))",
                "attention_pattern(attention_scores(query, key, mask)) * (mask == 0)",
            ),
        ),
    ),
    Mutant(
        "padding attended to", "attention.py", (("attention_mask.to(device) != 0", "attention_mask.to(device) >= 0"),)
    ),
    Mutant("sdpa looks ahead", "attention.py", (("is_causal = mask is None and", "is_causal = False and"),)),
    Mutant(
        "sdpa without a mask for a chunk after a past",
        "model.py",
        (("(query_length == 1 or query_length == key_length)", "True"),),
    ),
    Mutant(
        "attention dropout while evaluating",
        "attention.py",
        (("self.attention_dropout if self.training else 0.0", "self.attention_dropout"),),
    ),
    Mutant(
        "adjacent channels paired",
        "rotary.py",
        (
            (
                'first, second = rearrange(x, "... (half pair) -> half ... pair", half=2)',
                'first, second = rearrange(x, "... (pair half) -> half ... pair", half=2)',
            ),
            (
                "return torch.cat((-second, first), dim=-1)",
                'return rearrange(torch.stack((-second, first)), "half ... pair -> ... (pair half)")',
            ),
            ("batch position pair -> batch position (half pair)", "batch position pair -> batch position (pair half)"),
        ),
    ),
    Mutant(
        "rotation the other way",
        "rotary.py",
        (("torch.cat((-second, first), dim=-1)", "torch.cat((second, -first), dim=-1)"),),
    ),
    Mutant(
        "every channel rotated",
        "config.py",
        (("return int(self.partial_rotary_factor * self.head_dim)", "return self.head_dim"),),
    ),
    Mutant(
        "frequencies spread over the head instead of its rotary channels",
        "rotary.py",
        (("/ rotary_dim\n    return 1.0 / theta**exponents", "/ (2 * rotary_dim)\n    return 1.0 / theta**exponents"),),
    ),
    Mutant(
        "linear scaling multiplies",
        "rotary.py",
        (("positions = positions / factor", "positions = positions * factor"),),
    ),
    Mutant("dynamic scaling forgotten", "rotary.py", (("if length <= trained_length:", "if True:"),)),
    Mutant(
        "dynamic scaling by the new tokens alone",
        "model.py",
        (("rotary_tables(position_ids, config, length,", "rotary_tables(position_ids, config, hidden.shape[1],"),),
    ),
    Mutant(
        "positions behind a cache off by one",
        "model.py",
        (
            (
                "torch.arange(past, length,",
                "torch.arange(past - (past > 0), length - (past > 0),",
            ),
        ),
    ),
    Mutant(
        "last hidden state before the final norm",
        "model.py",
        (
            (
                "        hidden = self.final_layernorm(hidden)\n        hidden_states.append(hidden)\n",
                "        hidden_states.append(hidden)\n        hidden = self.final_layernorm(hidden)\n",
            ),
        ),
    ),
    Mutant(
        "hidden dropout after attention too",
        "model.py",
        (("hidden = hidden + attended", "hidden = hidden + self.dropout(attended)"),),
    ),
    Mutant(
        "attention and MLP side by side",
        "model.py",
        (
            (
                "self.mlp(self.post_attention_layernorm(hidden))",
                "self.mlp(self.post_attention_layernorm(hidden - attended))",
            ),
        ),
    ),
    Mutant("embeddings not tied", "pretrained.py", (("if self.config.tie_word_embeddings and", "if False and"),)),
    Mutant("padding row trained", "model.py", (("padding_idx=config.pad_token_id", "padding_idx=None"),)),
    Mutant("ReLU not squared", "mlp.py", (("return F.relu(x).square()", "return F.relu(x)"),)),
    Mutant("gelu_new without its approximation", "mlp.py", (('F.gelu(x, approximate="tanh")', "F.gelu(x)"),)),
    Mutant("loss without the shift", "losses.py", (("F.pad(labels[:, 1:]", "F.pad(labels[:, :-1]"),)),
    Mutant("ignored labels counted", "losses.py", (("(labels != IGNORED).sum()", "torch.tensor(labels.numel())"),)),
    Mutant(
        "classifier reads the last position",
        "classification.py",
        (("return torch.where(rightmost < 0, last, rightmost)", "return last"),),
    ),
]


def plant(mutant: Mutant | None, folder: Path) -> None:
    """Copies the package's sources into the folder and edits them there."""
    copy = folder / PACKAGE.name
    shutil.copytree(PACKAGE, copy, ignore=lambda _, names: [n for n in names if "." in n and not n.endswith(".py")])
    for old, new in mutant.edits if mutant else ():
        source = (copy / mutant.file).read_text()
        if source.count(old) != 1:
            raise SystemExit(f"{mutant.name}: {source.count(old)} times in {mutant.file}, wanted once:\n{old}")
        (copy / mutant.file).write_text(source.replace(old, new))


def imported_from(folder: Path) -> ModuleType:
    """The package in that folder, whatever was imported under its name before."""
    for name in [name for name in sys.modules if name.split(".")[0] == PACKAGE.name]:
        del sys.modules[name]
    sys.path.insert(0, str(folder))
    try:
        package = importlib.import_module(PACKAGE.name)
    finally:
        sys.path.remove(str(folder))
    assert Path(package.__file__).is_relative_to(folder)
    return package


def telling_case(mutant: Mutant | None, reference: dict[str, torch.Tensor]) -> str | None:
    """The first case whose result with the planted bug is too far from the reference."""
    with tempfile.TemporaryDirectory() as folder:
        plant(mutant, Path(folder))
        package = imported_from(Path(folder))
        for case in CASES.values():
            theirs = {name.split("/")[1]: each for name, each in reference.items() if name.startswith(case.name + "/")}
            for implementation in ("eager", "sdpa") if case.in_reference else ():
                ours = compute(case, package, torch.float32, implementation)
                if largest_difference(ours, theirs) > TOLERANCE[torch.float32]:
                    return f"{case.name} ({implementation})"
    return None


def main() -> None:
    torch.set_num_threads(1)
    sys.dont_write_bytecode = True
    reference = load_file(REFERENCE)
    if case := telling_case(None, reference):
        raise SystemExit(f"without any planted bug this case fails already: {case}")
    survivors = []
    for mutant in MUTANTS:
        case = telling_case(mutant, reference)
        print(mutant.name, case or "NOTHING", sep="\t", flush=True)
        if case is None:
            survivors.append(mutant.name)
    if survivors:
        raise SystemExit(f"no case tells: {', '.join(survivors)}")


if __name__ == "__main__":
    main()
