"""What `speed.py` measures: the cases of each size, and how fast each could be at the most."""

import torch

from benchmarks.sizes import CONTENDERS, QUADRATIC, SIZES
from persimmon_lab import PersimmonConfig
from persimmon_lab.fitting.roofline import bytes_per_step, flops

PEERS = ("transformers 5 sdpa", "transformers 5 eager", "transformers 4.37.2")
KINDS = ("decode", "prefill", "memory", "train", "widget", "int8")  # in this order: training comes after reading
ONCE = ("memory", "int8")  # not timed: one answer from a fresh process
LIMITED = ("decode", "prefill")  # kinds that stand beside what the machine allows
PROMPT = 16
LONG = 16384


def cases(size: str, dtype: str, device: str) -> list[dict]:
    """The kind of each case, its arguments and who takes part."""
    everyone = [*CONTENDERS]
    context = SIZES[size]["max_position_embeddings"]
    everyone.remove("ours compiled")  # asked for by --compiled: warming it up takes longer than a case
    exact = [name for name in everyone if name != "ours int8"]  # int8 is for decoding; a prompt only costs it
    collected = []

    def add(kind: str, contenders: list[str], **arguments):
        collected.append({"size": size, "dtype": dtype, "device": device, "kind": kind, "arguments": arguments,
                      "contenders": contenders})  # fmt: skip

    if size == "8b":
        everyone = ["ours", "ours plain", "transformers 5 sdpa"]
        add("decode", everyone, batch=1, prompt=2048, new=64)
        for length in (2048, 16384):
            add("prefill", everyone, length=length)
        for exponent in range(9):
            add("decode", ["ours"], batch=2**exponent, prompt=PROMPT, new=64)
        return collected
    for batch in (1, 8, 32):
        add("decode", everyone, batch=batch, prompt=PROMPT, new=16 if size == "M" and batch == 32 else 32)
    for length in (128, 512, 2048, 8192):
        if length < context:
            add("prefill", [name for name in exact if length <= 2048 or name not in QUADRATIC], length=length)
    if size == "S":
        add("train", ["ours", *PEERS], batch=8, length=256)
        if dtype == "bfloat16":
            add("memory", ["ours", "ours plain", *PEERS], length=4096)
    if size == "M" and dtype == "bfloat16":
        add("memory", ["ours", "ours plain", "transformers 5 sdpa"], length=LONG)
        add("memory", ["ours"], length=LONG, chunked=True)
    if size == "mini" and dtype == "float32":
        add("widget", ["ours"], new=100)
        add("int8", ["ours int8"])
    return collected


def key(case: dict) -> str:
    """The name that a case is stored under."""
    arguments = " ".join(f"{name}={value}" for name, value in case["arguments"].items())
    return f"{case['device']} {case['size']} {case['dtype']} {case['kind']} {arguments}".strip()


def is_quick(case: dict) -> bool:
    """Whether it is part of a first look."""
    return case["kind"] in LIMITED and (case["arguments"].get("batch") == 1 or case["arguments"].get("length") == 512)


def demand(case: dict) -> tuple[int, int, int]:
    """Bytes that must be read, operations, and tokens that come of them: a decode step's, halfway through, or a
    prompt's."""
    config, dtype = PersimmonConfig(**SIZES[case["size"]]), getattr(torch, case["dtype"])
    arguments = case["arguments"]
    if case["kind"] == "decode":
        batch, past = arguments["batch"], arguments["prompt"] + arguments["new"] // 2
        return bytes_per_step(config, dtype, past, batch), flops(config, 1, past, batch), batch
    return bytes_per_step(config, dtype), flops(config, arguments["length"]), arguments["length"]


def limit_rate(case: dict, limits: dict) -> float:
    """The most tokens a second that this bandwidth and matrix rate allow: reading and computing may overlap, so the
    slower of the two decides. Several rows still read each weight once; past the ridge arithmetic takes over."""
    moved, work, tokens = demand(case)
    return tokens / max(moved / limits["bandwidth"], work / limits["matrix"])
