"""One contender in a process of its own, which works when it is told to and otherwise sleeps.

Run as a program, it reads one request a line and answers with one line, both JSON. Every contender makes the same
weights: numbers from one seed, filled in by the parameters' names, which all libraries share; persimmon-mini's are read
from its file. `Contender` is the other side, which starts the process and asks.

Only torch and the contender's library are imported here, so that transformers 4.37.2's environment can run it.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable

from benchmarks.sizes import CONTENDERS, MINI, SIZES, python_of

SHORTEST = 0.3  # seconds: what is over sooner is repeated, for clocks and contention are read in hundredths
CHUNK = 1024  # positions of a long prompt at a time


class Refused(Exception):
    """The contender could not do what it was asked for; the message is its own."""


class Contender:
    """A running contender: `ask("decode", batch=8, ...)` returns its answer, a dictionary of numbers."""

    def __init__(self, name: str, size: str, dtype: str, device: str = "cpu", threads: int = 1):
        self.prepare(name, threads)
        try:
            self.about = self.ask("load", name=name, size=size, dtype=dtype, device=device)
        except Refused:
            self.close()
            raise

    def prepare(self, name: str, threads: int):
        """Start the process."""
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
        environment |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "PYTHONWARNINGS": "ignore"}
        self.name = name
        self.process = subprocess.Popen(
            [python_of(name), "-m", "benchmarks.contenders"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment, cwd=MINI.parents[1],
        )  # fmt: skip

    def ask(self, task: str, **arguments) -> dict:
        """Raises Refused with the contender's own words, or when it has died."""
        try:
            self.process.stdin.write(json.dumps({"task": task, **arguments}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        answer = json.loads(line) if line else {"refused": f"died (exit status {self.process.wait()})"}
        if "refused" in answer:
            raise Refused(answer["refused"])
        return answer

    def close(self):
        with contextlib.suppress(BrokenPipeError):  # it died before it read the last request
            self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Limits(Contender):
    """The process that measures the machine."""

    def __init__(self, device: str, threads: int):
        self.prepare("ours", threads)
        self.ask("prepare_limits", device=device)


class Clock:
    """A logits processor, which every library's `generate` takes, that notes when the first and the last logits came.

    Between them lie the steps alone, without the prompt. A streamer would do it too, but transformers copies every
    token to the CPU for one, and a GPU waits for that.
    """

    def __init__(self, last: int, synchronise: Callable[[], None]):
        self.last, self.synchronise, self.count, self.times = last, synchronise, 0, []

    def __call__(self, ids, scores):
        self.count += 1
        if self.count in (1, self.last):
            self.synchronise()
            self.times.append(time.perf_counter())
        return scores


class Worker:
    """What the process does for each request: the methods are the tasks."""

    def load(self, name: str, size: str, dtype: str, device: str) -> dict:
        import torch

        self.torch, self.device, self.size = torch, device, size
        self.library, self.way = CONTENDERS[name]
        torch.manual_seed(0)
        torch.set_default_dtype(getattr(torch, dtype))
        with torch.device(device):
            self.model = self.make(SIZES[size] | {"eos_token_id": None}).eval()  # nobody stops early
        torch.set_default_dtype(torch.float32)
        self.model.to(getattr(torch, dtype))
        self.fill()
        self.resident = memory(self, "VmRSS")
        return {
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "torch": torch.__version__,
        }

    def make(self, sizes: dict):
        if self.library == "persimmon_lab":
            from persimmon_lab import PersimmonConfig, PersimmonForCausalLM

            return PersimmonForCausalLM(PersimmonConfig(**sizes))
        from transformers import PersimmonConfig, PersimmonForCausalLM

        if self.way is None:
            return PersimmonForCausalLM(PersimmonConfig(**sizes))
        return PersimmonForCausalLM._from_config(PersimmonConfig(**sizes), attn_implementation=self.way)

    def fill(self):
        """Give every contender the same weights."""
        if self.size == "mini":
            from safetensors.torch import load_file

            self.model.load_state_dict(load_file(MINI / "model.safetensors"), strict=False)
            return
        source = self.torch.Generator(self.device).manual_seed(0)
        with self.torch.no_grad():
            for name, parameter in sorted(self.model.named_parameters()):
                parameter.normal_(0.0, 0.02, generator=source)
                if "layernorm" in name and name.endswith("weight"):
                    parameter.add_(1.0)

    def tokens(self, batch: int, length: int):
        source = self.torch.Generator().manual_seed(length)
        vocab = SIZES[self.size]["vocab_size"]
        return self.torch.randint(4, vocab, (batch, length), generator=source).to(self.device)

    def generate(self, ids, new: int, **more):
        """The public `generate`, greedy, exactly `new` tokens."""
        more = {"do_sample": False, "max_new_tokens": new} | more
        if self.library == "persimmon_lab":
            return self.model.generate(ids, engine=self.way, **more)
        return self.model.generate(ids, attention_mask=self.torch.ones_like(ids), pad_token_id=3, **more)

    def synchronise(self):
        if self.device != "cpu":
            self.torch.cuda.synchronize()

    def seconds(self, work, shortest: float = SHORTEST) -> float:
        """Of one run of `work`, over as many as take `shortest` seconds."""
        runs, start = 0, time.perf_counter()
        while not runs or time.perf_counter() - start < shortest:
            work()
            self.synchronise()
            runs += 1
        return (time.perf_counter() - start) / runs

    def decode(self, batch: int, prompt: int, new: int) -> dict:
        """Tokens a second after the first one, over as many generations as have SHORTEST seconds of steps."""
        ids = self.tokens(batch, prompt)
        self.generate(ids, 2)  # the first time an engine lays its weights out, or compiles
        first, steps = [], []
        while sum(steps) < SHORTEST:
            clock = Clock(1 + new, self.synchronise)
            start = time.perf_counter()
            self.generate(ids, 1 + new, logits_processor=[clock])
            first.append(clock.times[0] - start)
            steps.append(clock.times[1] - clock.times[0])
        return {"rate": batch * new * len(steps) / sum(steps), "first": sum(first) / len(first)}

    def prefill(self, length: int) -> dict:
        """Prompt tokens a second until the first new token is there."""
        ids = self.tokens(1, length)
        first = self.seconds(lambda: self.generate(ids, 1))
        return {"rate": length / first, "first": first}

    def train(self, batch: int, length: int) -> dict:
        """Tokens a second of a training step: loss, gradients, AdamW."""
        ids = self.tokens(batch, length)
        self.model.train()
        if not hasattr(self, "optimiser"):
            self.optimiser = self.torch.optim.AdamW(self.model.parameters(), lr=1e-6)

        def step():
            self.model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
            self.optimiser.step()
            self.optimiser.zero_grad()

        return {"rate": batch * length / self.seconds(step)}

    def memory(self, length: int, chunked: bool = False) -> dict:
        """Bytes at the peak of reading a prompt, in all and beyond what was there with the weights loaded."""
        forget_the_peak(self)
        more = {"prefill_chunk_size": CHUNK} if chunked else {}
        first = self.seconds(lambda: self.generate(self.tokens(1, length), 1, **more), 0)
        peak = memory(self, "VmHWM")
        return {"peak": peak, "beyond": peak - self.resident, "rate": length / first}

    def prepare_limits(self, device: str) -> dict:
        import torch

        self.torch, self.device = torch, device
        return {}

    def limits(self, size: str, dtype: str) -> dict:
        """What this machine can right now, in bytes and operations a second (needs no model).

        As many bytes are streamed, over and over, as the model has weights: small ones stay in the processor's cache.
        """
        from persimmon_lab import PersimmonConfig
        from persimmon_lab.fitting.roofline import (
            STREAMED_BYTES,
            bytes_per_step,
            measure_bandwidth,
            measure_matrix_rate,
        )

        dtype = getattr(self.torch, dtype)
        streamed = min(bytes_per_step(PersimmonConfig(**SIZES[size]), dtype), STREAMED_BYTES)
        on_gpu = {} if self.device == "cpu" else {"size": 8192}
        bandwidth = measure_bandwidth(dtype, self.device, streamed=streamed, repeats=5)
        return {"bandwidth": bandwidth, "matrix": measure_matrix_rate(dtype, self.device, repeats=3, **on_gpu)}

    def widget(self, new: int) -> dict:
        """Seconds of generating, and of the playground that shows it, with one set of settings."""
        from persimmon_lab import load_mini
        from persimmon_lab.widgets.playground.widget import GenerationPlayground

        if not hasattr(self, "playground"):
            model, tokenizer = load_mini()
            prompt = "human: Hello, how are you?\n\nadept:"
            self.playground = GenerationPlayground(model, tokenizer, prompt, max_new_tokens=new, seed=0)
        widget = self.playground
        ids = widget.tokenizer(widget.settings.prompt, return_tensors="pt").input_ids
        start = time.perf_counter()
        sequences = widget.model.generate(ids, **widget.settings.generate_arguments())
        without = time.perf_counter() - start
        start = time.perf_counter()
        widget.generate().wait()
        seconds = time.perf_counter() - start
        count = sequences.shape[1] - ids.shape[1]
        if widget.run.error is not None:
            raise widget.run.error
        rate = len(widget.run.tokens) / seconds
        return {"rate": rate, "cost": seconds / len(widget.run.tokens) / (without / count) - 1}

    def bits_per_byte(self) -> dict:
        """Of persimmon-mini's model card, which it was not trained on, by the plain model and by this engine."""
        from persimmon_lab import load_mini
        from persimmon_lab.generation.engines.choosing import runner_for

        model, tokenizer = load_mini()
        ids = tokenizer((MINI / "MODEL_CARD.md").read_text(encoding="utf-8"), return_tensors="pt").input_ids
        rows = [row for row in ids.split(512, dim=1) if row.shape[1] == 512]
        size = sum(len(tokenizer.decode(row[0, 1:]).encode()) for row in rows)
        nats = {}
        for engine in ("plain", self.way):
            run, total = runner_for(model, engine), 0.0
            for row in rows:
                with self.torch.no_grad():
                    logits = run(input_ids=row, use_cache=False, logits_to_keep=0).logits.float()
                total += self.torch.nn.functional.cross_entropy(logits[0, :-1], row[0, 1:], reduction="sum").item()
            nats[engine] = total / 0.6931471805599453 / size
        return {"plain": nats["plain"], "engine": nats[self.way], "bytes": size}

    def profile(self, batch: int, prompt: int, new: int) -> dict:
        """Where a decode step's time goes: microseconds per step by operator, and how often it is called."""
        ids = self.tokens(batch, prompt)
        self.generate(ids, 2)
        with self.torch.profiler.profile() as profiler:
            start = time.perf_counter()
            self.generate(ids, new)
            whole = time.perf_counter() - start
        averages = profiler.key_averages()
        rows = [(kernel.key, kernel.self_cpu_time_total / new, kernel.count / new) for kernel in averages]
        return {"step": whole / new * 1e6, "rows": sorted(rows, key=lambda row: -row[1])[:18]}


def memory(worker: Worker, field: str) -> int:
    if worker.device != "cpu":
        peak = worker.torch.cuda.max_memory_allocated
        return peak() if field == "VmHWM" else worker.torch.cuda.memory_allocated()
    from benchmarks.machine import resident

    return resident(field)


def forget_the_peak(worker: Worker):
    if worker.device != "cpu":
        return worker.torch.cuda.reset_peak_memory_stats()
    from benchmarks.machine import forget_the_peak

    return forget_the_peak()


def main():
    answers = os.fdopen(os.dup(1), "w")  # what libraries print goes to stderr instead
    os.dup2(2, 1)
    worker = Worker()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(worker, request.pop("task"))(**request)
        except Exception as error:
            answer = {"refused": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
