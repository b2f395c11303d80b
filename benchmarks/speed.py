"""How fast Persimmon Lab decodes, reads prompts and trains, beside transformers and what the machine allows.

    ./lab bench                                        # everything, about twenty minutes on two cores
    ./lab bench --quick                                # a first look, about two minutes
    ./lab bench --sizes M --dtypes bfloat16 --only decode
    ./lab bench --config 8b --device cuda              # not yet seen on a GPU
    ./lab bench --profile --sizes M --dtypes float32   # where a decode step's time goes
    ./lab bench --render                               # only the table and the picture, from what was measured

Decode: greedy `generate` from 16 tokens; the time of 1 + N new tokens less that of one, so that only steps count.
Prefill: `generate` of one token. Contenders are processes that take turns in every round with the machine's limits;
ratios are medians over the rounds of what was measured within one round. What other processes disturbed is thrown away
and taken again (quiet.py). A case is stored as soon as it is measured, and one that is stored is not measured again
unless asked for by `--again`: an interrupted run goes on where it was.
"""

import argparse
import datetime
import json
import os
import statistics
import time
from pathlib import Path

import psutil
import torch
from contenders import Contender, Refused
from machine import machine
from quiet import quiet_sample
from sizes import CONTENDERS, HERE, QUADRATIC, SIZES, python_of

from persimmon_lab import PersimmonConfig
from persimmon_lab.roofline import bytes_per_step, flops

RESULTS = HERE / "results" / "speed.json"
PEERS = ("transformers 5 sdpa", "transformers 5 eager", "transformers 4.37.2")
LIMITS = "limits"
PROMPT = 16
LONG = 16384
KINDS = ("decode", "prefill", "memory", "train", "widget", "int8")
BUDGET, ROUNDS, MOST_ROUNDS = 20.0, 3, 9  # seconds a case may take once it has its rounds


def cases(size: str, dtype: str, device: str) -> list[dict]:
    """What is measured at a size: the kind, its arguments and who takes part."""
    everyone, context = [*CONTENDERS], SIZES[size]["max_position_embeddings"]
    everyone.remove("ours compiled")  # asked for by --compiled: warming it up takes longer than a case
    found = []

    def add(kind: str, contenders: list[str], **arguments):
        found.append({"size": size, "dtype": dtype, "device": device, "kind": kind, "arguments": arguments,
                      "contenders": contenders})  # fmt: skip

    if size == "8b":
        everyone = ["ours", "ours plain", "transformers 5 sdpa"]
        add("decode", everyone, batch=1, prompt=2048, new=64)
        for length in (2048, 16384):
            add("prefill", everyone, length=length)
        for exponent in range(1, 9):
            add("decode", ["ours"], batch=2**exponent, prompt=PROMPT, new=64)
        return found
    for batch in (1, 8, 32):
        add("decode", everyone, batch=batch, prompt=PROMPT, new=16 if size == "M" and batch == 32 else 32)
    for length in (128, 512, 2048, 8192):
        if length < context:
            add("prefill", [name for name in everyone if length <= 2048 or name not in QUADRATIC], length=length)
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
    return found


def key(case: dict) -> str:
    """The name that a case is stored under."""
    arguments = " ".join(f"{name}={value}" for name, value in case["arguments"].items())
    return f"{case['device']} {case['size']} {case['dtype']} {case['kind']} {arguments}".strip()


def limit_rate(case: dict, limits: dict) -> float:
    """The most tokens a second that this round's bandwidth and matrix rate allow."""
    config, dtype = PersimmonConfig(**SIZES[case["size"]]), getattr(torch, case["dtype"])
    arguments = case["arguments"]
    if case["kind"] == "decode":
        batch, past = arguments["batch"], arguments["prompt"] + arguments["new"] // 2
        moved, work, tokens = bytes_per_step(config, dtype, past, batch), flops(config, 1, past, batch), batch
    else:
        tokens = arguments["length"]
        moved, work = bytes_per_step(config, dtype), flops(config, tokens)
    return tokens / max(moved / limits["bandwidth"], work / limits["matrix"])


def summary(case: dict, rounds: list[dict]) -> dict:
    """Medians of the rates, and of the ratios within each round: ours over each other, each over the limit."""
    names = [name for name in case["contenders"] if any("rate" in each.get(name, {}) for each in rounds)]

    def median(of, *needed: str) -> float | None:
        values = [of(each) for each in rounds if all("rate" in each.get(name, {}) for name in needed)]
        return statistics.median(values) if values else None

    found = {"rates": {name: median(lambda each, name=name: each[name]["rate"], name) for name in names}}
    found["ratios"] = {
        name: median(lambda each, name=name: each["ours"]["rate"] / each[name]["rate"], "ours", name)
        for name in names if name != "ours"
    } if "ours" in names else {}  # fmt: skip
    limited = [each for each in rounds if LIMITS in each]
    if limited:
        found["limits"] = {
            of: statistics.median(each[LIMITS][of] for each in limited) for of in ("bandwidth", "matrix")
        }
        found["of_limit"] = {
            name: statistics.median(
                each[name]["rate"] / limit_rate(case, each[LIMITS]) for each in limited if name in each
            )
            for name in names
        }
    first = {name: [each[name]["first"] for each in rounds if "first" in each.get(name, {})] for name in names}
    found["first_token"] = {name: statistics.median(values) for name, values in first.items() if values}
    return found


def measure(case: dict, workers: dict[str, Contender], budget: float, rounds: int) -> dict:
    """Rounds in which everyone works once, in turn; the first warms up, unless it was long enough to be one."""
    pids = [os.getpid(), *(worker.process.pid for worker in workers.values())]
    refused, kept, thrown, disturbed = {}, [], 0, 0
    start = warm = time.perf_counter()
    while len(kept) < rounds or (len(kept) < MOST_ROUNDS and time.perf_counter() - warm < budget):
        this = {}
        for name in [LIMITS, *case["contenders"]]:
            if name in refused or name not in workers:
                continue
            task, arguments = (
                (LIMITS, {"dtype": case["dtype"], "rows": 1}) if name == LIMITS else (case["kind"], case["arguments"])
            )
            try:
                sample, bad = quiet_sample(lambda: workers[name].ask(task, **arguments), pids)  # noqa: B023
            except Refused as refusal:
                refused[name] = str(refusal)[:300]
                continue
            this[name], thrown, disturbed = sample.answer, thrown + bad, disturbed + sample.contended
        if not any(name in this for name in case["contenders"]):
            break
        kept.append(this)
        if len(kept) == 1 and warm == start:
            warm = time.perf_counter()
            if warm - start < budget:
                kept.clear()
                thrown = disturbed = 0
            else:
                rounds = min(rounds, 2)
    return {**case, **summary(case, kept), "rounds": len(kept), "thrown_away": thrown, "contended": disturbed,
            "refused": refused, "samples": kept}  # fmt: skip


def measure_once(case: dict, threads: int) -> dict:
    """Memory and int8: each contender in a fresh process, once."""
    answers, refused = {}, {}
    for name in case["contenders"]:
        worker = None
        try:
            worker = Contender(name, case["size"], case["dtype"], case["device"], threads)
            answers[name] = worker.ask("bits_per_byte" if case["kind"] == "int8" else "memory", **case["arguments"])
        except Refused as refusal:
            refused[name] = str(refusal)[:300]
        finally:
            if worker is not None:
                worker.close()
    return {**case, "answers": answers, "refused": refused}


def start(names: list[str], size: str, dtype: str, device: str, threads: int) -> dict[str, Contender]:
    workers = {}
    for name in names:
        try:
            workers[name] = Contender(name, size, dtype, device, threads)
        except (Refused, FileNotFoundError) as missing:
            print(f"    {name} does not take part: {missing}", flush=True)
    return workers


def is_measured(result: dict | None) -> bool:
    """Whether anything came of it: what everyone refused is asked again."""
    return bool(result) and bool(result.get("rates") or result.get("answers"))


def store(path: Path, results: dict):
    path.parent.mkdir(exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    unfinished.replace(path)


def line(result: dict) -> str:
    if "answers" in result:
        text = json.dumps(result["answers"])
    else:
        text = "  ".join(f"{name} {rate:,.0f}" for name, rate in result["rates"].items())
        ratio, share = result["ratios"].get("transformers 5 sdpa"), result.get("of_limit", {}).get("ours")
        text += f"  | {ratio:.2f} x sdpa" if ratio else ""
        text += f", {share:.0%} of the limit" if share else ""
        text += f"  ({result['rounds']} rounds, {result['thrown_away']} thrown away, {result['contended']} disturbed)"
    return f"    {text}" + "".join(f"\n    {name}: {why}" for name, why in result["refused"].items())


def run(arguments: argparse.Namespace):
    path = arguments.output
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"cases": {}}
    about = machine(("torch", "transformers"))
    threads = arguments.threads or psutil.cpu_count(logical=False) or os.cpu_count()
    budget, rounds = (2.0, 1) if arguments.quick else (arguments.budget, ROUNDS)
    for size in arguments.sizes:
        for dtype in arguments.dtypes:
            wanted = [case for case in cases(size, dtype, arguments.device) if case["kind"] in arguments.only]
            if arguments.quick:
                wanted = [case for case in wanted if quick(case)]
            for case in wanted:
                chosen = case["contenders"] + (
                    ["ours compiled"] if arguments.compiled and case["kind"] == "decode" else []
                )
                case["contenders"] = [
                    name for name in chosen if name in arguments.contenders and python_of(name).exists()
                ]
            wanted = [case for case in wanted if arguments.again or not is_measured(results["cases"].get(key(case)))]
            shared = [case for case in wanted if case["kind"] not in ("memory", "int8")]
            names = list(dict.fromkeys(name for case in shared for name in case["contenders"]))
            print(f"{size} {dtype}: {len(wanted)} cases", flush=True)
            workers = start(names, size, dtype, arguments.device, threads)
            try:
                if shared:
                    limits = Limits(arguments.device, threads)
                    workers[LIMITS] = limits
                for case in sorted(wanted, key=lambda case: KINDS.index(case["kind"])):
                    print(f"  {key(case)}", flush=True)
                    begun = time.perf_counter()
                    if case in shared:
                        alone = {
                            n: w for n, w in workers.items() if n != LIMITS or case["kind"] in ("decode", "prefill")
                        }
                        result = measure(case, alone, budget, rounds)
                    else:
                        result = measure_once(case, threads)
                    result |= {"date": datetime.date.today().isoformat(), "machine": about, "threads": threads,
                               "quick": arguments.quick, "seconds": time.perf_counter() - begun}  # fmt: skip
                    results["cases"][key(case)] = result
                    store(path, results)
                    print(line(result), flush=True)
            finally:
                for worker in workers.values():
                    worker.close()


class Limits(Contender):
    """The process that measures the machine."""

    def __init__(self, device: str, threads: int):
        self.prepare("ours", threads)
        self.ask("prepare_limits", device=device)


def quick(case: dict) -> bool:
    return case["kind"] in ("decode", "prefill") and (
        case["arguments"].get("batch") == 1 or case["arguments"].get("length") == 512)  # fmt: skip


def profile(arguments: argparse.Namespace):
    """Print where the time of a decode step of ours goes."""
    threads = arguments.threads or psutil.cpu_count(logical=False) or os.cpu_count()
    for size in arguments.sizes:
        for dtype in arguments.dtypes:
            worker = Contender("ours", size, dtype, arguments.device, threads)
            answer = worker.ask("profile", batch=1, prompt=PROMPT, new=32)
            worker.close()
            print(f"{size} {dtype}: {answer['step']:,.0f} us a step under the profiler")
            for operator, micro, calls in answer["rows"]:
                print(f"  {micro:10,.1f} us  {micro / answer['step']:6.1%}  {calls:7.1f} calls  {operator}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["M", "S", "mini"])
    parser.add_argument("--config", choices=SIZES, help="one size, by transformers' word for it")
    parser.add_argument("--dtypes", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"])
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=[*CONTENDERS])
    parser.add_argument("--compiled", action="store_true", help="let engine='compiled' take part in decoding")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="default: the physical cores")
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds for a case, once it has three rounds")
    parser.add_argument("--quick", action="store_true", help="one round of a few cases, into results/speed_quick.json")
    parser.add_argument("--again", action="store_true", help="measure what is stored already")
    parser.add_argument("--profile", action="store_true", help="print where a decode step's time goes")
    parser.add_argument("--render", action="store_true", help="only write the table and the picture")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    if arguments.config:
        arguments.sizes = [arguments.config]
        arguments.dtypes = ["bfloat16"] if arguments.config == "8b" else arguments.dtypes
    arguments.output = arguments.output or (RESULTS.with_name("speed_quick.json") if arguments.quick else RESULTS)
    if arguments.profile:
        return profile(arguments)
    if not arguments.render:
        run(arguments)
    if arguments.output == RESULTS and RESULTS.exists():
        from table import render

        render(RESULTS)
    return None


if __name__ == "__main__":
    main()
