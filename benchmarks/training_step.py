"""A step of training persimmon-mini, beside the same step at an earlier commit.

    python -m benchmarks.training_step                      # rates: five rounds, in turns
    python -m benchmarks.training_step --dtypes float32     # both made to compute in float32
    python -m benchmarks.training_step --losses 200         # the two losses over 200 steps from one start

The earlier commit is checked out into a worktree of its own. Both see the same tokens, this repository's own code and
prose in the shipped tokenizer's pieces, 4,096 a step. A round is one step of each; ratios are medians of those within a
round. What another process disturbed is thrown away and taken again (quiet.py). By default each computes as it would
train: the earlier commit in bfloat16, this one in what the machine multiplies fast.
"""

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.machine import machine, store
from benchmarks.quiet import quiet_sample

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "training_step.json"
BEFORE = "cb48301"
TOKENS = 4096

# Runs in either checkout: one request a line, one answer a line.
WORKER = """
import json, sys, time
import numpy as np, torch
from persimmon_lab.config import PersimmonConfig
from persimmon_lab.training import trainer
stream = np.load(sys.argv[1]); dtype = sys.argv[2]; length = int(sys.argv[3])
recipe = trainer.Recipe(steps=10_000)
config = PersimmonConfig(vocab_size=4096, hidden_size=256, intermediate_size=1024, num_hidden_layers=8,
                         num_attention_heads=8, max_position_embeddings=512)
is_new = hasattr(trainer, "training_loss")
if is_new:
    device = torch.device("cpu")
    chosen = getattr(torch, dtype) if dtype != "own" else trainer.fast_dtype(device)
    model, masters = trainer.build(config, recipe, chosen)
    model.set_attn_implementation(trainer.faster_attention(chosen, device, length))
else:
    model, masters = trainer.build(config, recipe)
    chosen = getattr(torch, dtype) if dtype != "own" else torch.bfloat16
    model.to(chosen)
    model.set_attn_implementation("eager" if length <= 256 else "sdpa")
generator = np.random.default_rng(0)
step = 0
for line in sys.stdin:
    losses, began = [], time.perf_counter()
    for _ in range(json.loads(line)):
        starts = generator.integers(0, len(stream) - length, 4096 // length)
        rows = torch.from_numpy(np.stack([stream[s : s + length + 1] for s in starts]).astype(np.int64))
        loss = trainer.training_loss(model, rows[:, :-1], rows[:, 1:]) if is_new else (
            trainer.next_token_loss(model, rows).mean())
        loss.backward()
        masters.step(recipe.rate_scale(step))
        step += 1
        losses.append(loss.item())
    seconds = time.perf_counter() - began
    print(json.dumps({"dtype": str(chosen).removeprefix("torch."), "rate": len(losses) * 4096 / seconds,
                      "losses": losses}), flush=True)
"""


class Checkout:
    """A process that takes training steps with the code of one folder."""

    def __init__(self, folder: Path, stream: Path, dtype: str, length: int):
        environment = os.environ | {"PYTHONPATH": str(folder)}
        command = [sys.executable, "-c", WORKER, str(stream), dtype, str(length)]
        self.process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def steps(self, count: int) -> dict:
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def tokens(path: Path):
    """This repository's Python and Markdown in the shipped tokenizer's pieces, as the file `path`."""
    import numpy as np

    from persimmon_lab.mini import MINI
    from persimmon_lab.tokenizer import PersimmonTokenizer

    tokenizer = PersimmonTokenizer.from_pretrained(MINI)
    listed = subprocess.run(["git", "ls-files", "*.py", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True)
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in listed.stdout.split() if (ROOT / name).exists()]
    np.save(path, np.concatenate([np.array(tokenizer.encode(text), dtype=np.uint16) for text in texts]))


def compare(dtype: str, length: int, rounds: int, losses: int, earlier: Path, stream: Path) -> dict:
    """Rates in turns, or losses over as many steps from one start."""
    sides = {"before": Checkout(earlier, stream, dtype, length), "now": Checkout(ROOT, stream, dtype, length)}
    pids = [os.getpid(), *(side.process.pid for side in sides.values())]
    try:
        if losses:
            answers = {name: side.steps(losses) for name, side in sides.items()}
            tail = {name: statistics.mean(answer["losses"][-20:]) for name, answer in answers.items()}
            return {
                "losses": {name: answer["losses"] for name, answer in answers.items()},
                "dtypes": {name: answer["dtype"] for name, answer in answers.items()},
                "last_20": tail,
                "apart": tail["now"] - tail["before"],
            }
        for side in sides.values():
            side.steps(1)  # warms up
        taken, disturbed = [], 0
        for _ in range(rounds):
            answers = {}
            for name, side in sides.items():
                sample, _ = quiet_sample(lambda: side.steps(1), pids)  # noqa: B023
                answers[name], disturbed = sample.answer, disturbed + sample.contended
            taken.append(answers)
        rates = {name: statistics.median(each[name]["rate"] for each in taken) for name in sides}
        ratio = statistics.median(each["now"]["rate"] / each["before"]["rate"] for each in taken)
        return {"rates": rates, "ratio": ratio, "rounds": rounds, "disturbed": disturbed,
                "dtypes": {name: taken[0][name]["dtype"] for name in sides}}  # fmt: skip
    finally:
        for side in sides.values():
            side.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtypes", nargs="+", choices=("own", "float32", "bfloat16"), default=["own"])
    parser.add_argument("--lengths", nargs="+", type=int, default=[128])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--losses", type=int, default=0, help="compare losses over as many steps instead")
    arguments = parser.parse_args()
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        earlier, stream = Path(folder) / "earlier", Path(folder) / "tokens.npy"
        subprocess.run(
            ["git", "worktree", "add", "--detach", earlier, BEFORE], cwd=ROOT, check=True, capture_output=True
        )
        try:
            tokens(stream)
            for dtype in arguments.dtypes:
                for length in arguments.lengths:
                    began = time.perf_counter()
                    result = compare(dtype, length, arguments.rounds, arguments.losses, earlier, stream)
                    name = f"{dtype} rows of {length}" + (f" losses over {arguments.losses}" * bool(arguments.losses))
                    results[name] = result | {
                        "before": BEFORE, "date": datetime.date.today().isoformat(), "machine": machine(("torch",)),
                        "seconds": time.perf_counter() - began,
                    }  # fmt: skip
                    store(RESULTS, results)
                    print(
                        name, json.dumps({key: value for key, value in result.items() if key != "losses"}), flush=True
                    )
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", earlier], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
