"""What eight and four bits cost persimmon-mini in bits per byte, and what they save in memory and time.

    python -m benchmarks.quantisation price --held-out FOLDER    # DOMAIN.txt of texts that nothing was trained on
    python -m benchmarks.quantisation speed                      # four layers of the 8B's shapes, made on the spot
    python -m benchmarks.quantisation speed --layers 36 --vocab 262144 --only int8 int4

The price: every format reads the same rows of the same texts; bits per byte of each domain, the share of positions
whose most probable token is the unrounded bfloat16 model's, and the mean of KL(bfloat16 || format) in nats.

The speed: each contender is a process of its own that loads the same random checkpoint; they take turns in rounds, and
ratios are medians of those within a round. A sample during which others computed is marked as contended; of such ones
seconds of the processor say more than those of the clock.
"""

import argparse
import datetime
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.machine import forget_the_peak, machine, resident, store
from benchmarks.quiet import watched
from persimmon_lab import PersimmonConfig, PersimmonForCausalLM, load_mini
from persimmon_lab.checkpoints.saving import write_weights
from persimmon_lab.checkpoints.skeletons import shapes_in_file, skeleton
from persimmon_lab.generation.engines.choosing import runner_for
from persimmon_lab.mini import MINI
from persimmon_lab.training.mini import WORKDIR

RESULTS = Path(__file__).with_name("results") / "quantisation.json"
FORMATS = {"float32": {"dtype": torch.float32}, "bfloat16": {"dtype": torch.bfloat16}, "int8": {"quantize": "int8"},
           "int4": {"quantize": "int4"}}  # fmt: skip
CONTENDERS = ("transformers", "plain", "fast", "int8", "int4")
ROWS, LENGTH = 16, 512  # of each domain, at most
BESIDE = "bfloat16"  # what the others are compared with
PROMPT = 16  # tokens before the steps that are timed


@torch.no_grad()
def price(folder: Path, rows: int = ROWS) -> dict:
    """Of each format bits per byte by domain, and how far its predictions are from bfloat16's."""
    tokenizer = load_mini()[1]
    texts = {path.stem: cut(tokenizer, path.read_text(encoding="utf-8"), rows) for path in sorted(folder.glob("*.txt"))}
    if not texts:
        raise ValueError(
            f"{folder} has no DOMAIN.txt; the corpus of `persimmon-lab train mini` has, in corpus/held_out"
        )
    models = {name: PersimmonForCausalLM.from_pretrained(MINI, **options) for name, options in FORMATS.items()}
    report: dict = {
        name: {"megabytes": model.get_memory_footprint() / 1e6, "bits_per_byte": {}, "agreement": {}, "kl": {}}
        for name, model in models.items()
    }
    for domain, (ids, size) in texts.items():
        sums = {name: [0.0, 0.0, 0.0] for name in models}
        for row in ids:
            scores = {name: model(row[None, :-1]).logits[0].float().log_softmax(-1) for name, model in models.items()}
            right, best = scores[BESIDE], scores[BESIDE].argmax(-1)
            for name, score in scores.items():
                sums[name][0] -= score.gather(1, row[1:, None]).sum().item()
                sums[name][1] += (score.argmax(-1) == best).sum().item()
                sums[name][2] += (right.exp() * (right - score)).sum().item()
        positions = ids.shape[0] * (ids.shape[1] - 1)
        for name, (nats, agreed, divergence) in sums.items():
            report[name]["bits_per_byte"][domain] = nats / size / math.log(2)
            report[name]["agreement"][domain] = agreed / positions
            report[name]["kl"][domain] = divergence / positions
        print(
            f"{domain:20}" + "  ".join(f"{n} {r['bits_per_byte'][domain]:.4f}" for n, r in report.items()), flush=True
        )
    for entry in report.values():
        for what in ("bits_per_byte", "agreement", "kl"):
            entry[what]["mean"] = statistics.mean(entry[what].values())
    return {
        "rows": rows,
        "length": LENGTH,
        "bytes": {domain: size for domain, (_, size) in texts.items()},
        "formats": report,
    }


def cut(tokenizer, text: str, rows: int) -> tuple[torch.Tensor, int]:
    """The first rows of a text, each of 513 tokens and overlapping by one, and the bytes that they predict."""
    ids = torch.tensor(tokenizer.encode(text[: 20 * rows * LENGTH], add_special_tokens=False))
    count = max(1, min(rows, (len(ids) - 1) // LENGTH))
    length = min(LENGTH, len(ids) - 1)
    kept = torch.stack([ids[row * length : (row + 1) * length + 1] for row in range(count)])
    size = sum(len(tokenizer.decode(row[1:]).encode()) for row in kept)
    return kept, size


def build(folder: Path, layers: int, vocab: int) -> None:
    """A random bfloat16 checkpoint with layers of the 8B's, a tensor at a time."""
    config = PersimmonConfig.persimmon_8b(num_hidden_layers=layers, vocab_size=vocab,
                                          architectures=["PersimmonForCausalLM"])  # fmt: skip
    shapes = shapes_in_file(skeleton(PersimmonForCausalLM, config), ())
    write_weights(folder, {name: Drawn(shape, seed) for seed, (name, shape) in enumerate(shapes.items())}, "5GB")
    config.save_pretrained(folder)


class Drawn:
    """A random tensor as a source: normal with deviation 0.02, around 1 where it is a vector. Cut out of one pool of
    numbers from another place for each piece, because drawing them all would take longer than all else."""

    dtype = torch.bfloat16
    pool = torch.randn(2**23, generator=torch.Generator().manual_seed(0)).mul_(0.02).to(dtype)

    def __init__(self, shape: tuple[int, ...], seed: int):
        self.shape, self.seed = shape, seed
        self.nbytes = math.prod(shape) * self.dtype.itemsize

    def pieces(self, rows: int):
        for start in range(0, self.shape[0], rows):
            shape = (min(rows, self.shape[0] - start), *self.shape[1:])
            size = math.prod(shape)
            place = (1_000_003 * self.seed + 7919 * start) % (len(self.pool) - size)
            piece = self.pool[place : place + size].unflatten(0, shape).clone()
            yield piece.add_(1) if len(shape) == 1 else piece


def work(name: str, folder: str) -> None:
    """A contender: load, say how it went, then decode as often as it is told to."""
    before = resident("VmRSS")
    forget_the_peak()
    started = time.perf_counter()
    step = transformers_step(folder) if name == "transformers" else our_step(name, folder)
    about = {"load_seconds": time.perf_counter() - started, "peak_gb": (resident("VmHWM") - before) / 1e9}
    token = step(torch.randint(3, 1000, (1, PROMPT), generator=torch.Generator().manual_seed(0)))
    print(json.dumps(about | {"gb_after_first_token": (resident("VmRSS") - before) / 1e9}), flush=True)
    for line in sys.stdin:
        started, before = time.perf_counter(), time.process_time()
        for _ in range(int(line)):
            token = step(token)
        spent = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - before}
        print(json.dumps({what: seconds / int(line) for what, seconds in spent.items()}), flush=True)


def our_step(name: str, folder: str):
    quantize = name if name in ("int8", "int4") else None
    model = PersimmonForCausalLM.from_pretrained(folder, torch_dtype=torch.bfloat16, quantize=quantize, verify=False)
    run = runner_for(model, "plain" if name == "plain" else "fast")
    cache = None if name == "plain" else run.new_cache(1024)

    @torch.no_grad()
    def step(ids: torch.Tensor) -> torch.Tensor:
        nonlocal cache
        output = run(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = output.past_key_values
        return output.logits[:, -1:].argmax(-1)

    return step


def transformers_step(folder: str):
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    cache = transformers.DynamicCache()

    @torch.no_grad()
    def step(ids: torch.Tensor) -> torch.Tensor:
        return model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1:].argmax(-1)

    return step


def speed(layers: int, vocab: int, names: list[str], rounds: int, tokens: int) -> dict:
    """Seconds a token of each contender in turns."""
    with tempfile.TemporaryDirectory() as scratch:
        build(Path(scratch), layers, vocab)
        environment = os.environ | {
            "PYTHONWARNINGS": "ignore",
            "TRANSFORMERS_VERBOSITY": "error",
            "HF_HUB_OFFLINE": "1",
        }
        workers, about = {}, {}
        try:
            for name in names:
                command = [sys.executable, "-m", "benchmarks.quantisation", "work", name, scratch]
                workers[name] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                                 env=environment, cwd=Path(__file__).parents[1])  # fmt: skip
                about[name] = json.loads(workers[name].stdout.readline())
                print(name, about[name], flush=True)
            pids = [os.getpid(), *(worker.pid for worker in workers.values())]
            samples: list[dict] = []
            for _ in range(rounds + 1):
                samples.append({name: sample_of(worker, tokens, pids) for name, worker in workers.items()})
                print({name: round(s["seconds"], 3) for name, s in samples[-1].items()}, flush=True)
        finally:
            for worker in workers.values():
                worker.kill()
    samples = samples[1:]  # the first warms up
    first = names[0]
    return {
        "layers": layers,
        "vocab": vocab,
        "tokens": tokens,
        "about": about,
        "contended": sum(sample["contended"] for entry in samples for sample in entry.values()),
        **{
            f"{what}_a_token": {name: statistics.median(entry[name][what] for entry in samples) for name in names}
            for what in ("seconds", "cpu_seconds")
        },
        **{
            f"{first}_over_each_in_{what}": {
                name: statistics.median(entry[first][what] / entry[name][what] for entry in samples) for name in names
            }
            for what in ("seconds", "cpu_seconds")
        },
        "samples": samples,
    }


def sample_of(worker: subprocess.Popen, tokens: int, pids: list[int]) -> dict:
    def ask() -> dict:
        worker.stdin.write(f"{tokens}\n")
        worker.stdin.flush()
        return json.loads(worker.stdout.readline())

    sample = watched(ask, pids)
    return sample.answer | {"others": sample.others, "contended": sample.contended}


def main(arguments: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = parser.add_subparsers(dest="part", required=True)
    of_price = parts.add_parser("price")
    of_price.add_argument("--held-out", type=Path, default=WORKDIR / "corpus" / "held_out")
    of_price.add_argument("--rows", type=int, default=ROWS)
    of_speed = parts.add_parser("speed")
    of_speed.add_argument("--layers", type=int, default=4)
    of_speed.add_argument("--vocab", type=int, default=32768)
    of_speed.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    of_speed.add_argument("--rounds", type=int, default=5)
    of_speed.add_argument("--tokens", type=int, default=8)
    for part in (of_price, of_speed):
        part.add_argument("--out", type=Path, default=RESULTS)
    worker = parts.add_parser("work")
    worker.add_argument("name")
    worker.add_argument("folder")
    given = parser.parse_args(arguments)
    if given.part == "work":
        work(given.name, given.folder)
        return
    found = price(given.held_out, given.rows) if given.part == "price" else speed(
        given.layers, given.vocab, given.only, given.rounds, given.tokens
    )  # fmt: skip
    name = given.part if given.part == "price" else f"speed {given.layers} layers, vocabulary {given.vocab}"
    results = json.loads(given.out.read_text()) if given.out.exists() else {}
    store(given.out, results | {name: {"date": datetime.date.today().isoformat(), "machine": machine()} | found})


if __name__ == "__main__":
    main()
