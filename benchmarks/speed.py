"""How fast Persimmon Lab decodes, reads prompts and trains, beside transformers and what the machine allows.

    ./lab bench                                        # everything, about half an hour on two cores
    ./lab bench --quick                                # a first look, about two minutes
    ./lab bench --sizes M --dtypes bfloat16 --only decode
    ./lab bench --config 8b --device cuda              # not yet seen on a GPU
    ./lab bench --profile --sizes M --dtypes float32   # where a decode step's time goes
    ./lab bench --render                               # only the table and the picture, from what was measured

Decode: greedy `generate` from 16 tokens, from the first token's logits to the last one's, so that only steps count.
Prefill: `generate` of one token. Contenders are processes that take turns in every round with the machine's limits;
ratios are medians over the rounds of what was measured within one round. What other processes disturbed is thrown away
and taken again (quiet.py). A case is stored as soon as it is measured, and one that is stored is not measured again
unless asked for by `--again`: an interrupted run goes on where it was.
"""

import argparse
import datetime
import itertools
import json
import os
import time
from pathlib import Path

import psutil

from benchmarks.cases import KINDS, ONCE, PROMPT, cases, is_quick, key
from benchmarks.contenders import Contender, Limits, Refused
from benchmarks.machine import machine, store
from benchmarks.quiet import RETRIES
from benchmarks.rounds import BUDGET, FEWEST, LIMITS, measure, measure_once
from benchmarks.sizes import CONTENDERS, HERE, SIZES, python_of
from benchmarks.table import render

RESULTS = HERE / "results" / "speed.json"


def is_measured(result: dict | None) -> bool:
    """Whether anything came of it: what everyone refused is asked again."""
    return bool(result) and bool(result.get("rates") or result.get("answers"))


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


def chosen(size: str, dtype: str, arguments: argparse.Namespace, stored: dict) -> list[dict]:
    """The cases of a size that the command line asks for and that are not stored, with those who can take part."""
    selection = [case for case in cases(size, dtype, arguments.device) if case["kind"] in arguments.only]
    for case in selection:
        names = case["contenders"] + ["ours compiled"] * (arguments.compiled and case["kind"] == "decode")
        case["contenders"] = [name for name in names if name in arguments.contenders and python_of(name).exists()]
    selection = [case for case in selection if case["contenders"] and (is_quick(case) or not arguments.quick)]
    selection = [case for case in selection if arguments.again or not is_measured(stored.get(key(case)))]
    return sorted(selection, key=lambda case: KINDS.index(case["kind"]))


def run(arguments: argparse.Namespace):
    path = arguments.output
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"cases": {}}
    about = machine(("torch", "transformers"))
    how = {"budget": arguments.budget, "fewest": FEWEST, "retries": RETRIES}
    if arguments.quick:
        how = {"budget": 0.0, "fewest": 1, "retries": 0}
    for size, dtype in itertools.product(arguments.sizes, arguments.dtypes):
        selection = chosen(size, dtype, arguments, results["cases"])
        print(f"{size} {dtype}: {len(selection)} cases", flush=True)
        names = list(dict.fromkeys(n for case in selection if case["kind"] not in ONCE for n in case["contenders"]))
        workers = start(names, size, dtype, arguments.device, arguments.threads)
        try:
            for case in selection:
                print(f"  {key(case)}", flush=True)
                begun = time.perf_counter()
                once = case["kind"] in ONCE
                result = measure_once(case, arguments.threads) if once else measure(case, workers, **how)
                result |= {"date": datetime.date.today().isoformat(), "machine": about, "threads": arguments.threads,
                           "quick": arguments.quick, "seconds": time.perf_counter() - begun}  # fmt: skip
                results["cases"][key(case)] = result
                store(path, results)
                print(line(result), flush=True)
        finally:
            for worker in workers.values():
                worker.close()


def start(names: list[str], size: str, dtype: str, device: str, threads: int) -> dict[str, Contender]:
    """The contenders that can be had, and the process that measures the machine."""
    workers = {}
    for name in names:
        try:
            workers[name] = Contender(name, size, dtype, device, threads)
        except Refused as missing:
            print(f"    {name} does not take part: {missing}", flush=True)
    return workers | ({LIMITS: Limits(device, threads)} if workers else {})


def profile(arguments: argparse.Namespace):
    """Print where the time of a decode step of ours goes."""
    for size, dtype in itertools.product(arguments.sizes, arguments.dtypes):
        worker = Contender("ours", size, dtype, arguments.device, arguments.threads)
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
    cores = psutil.cpu_count(logical=False) or os.cpu_count()
    parser.add_argument("--threads", type=int, default=cores, help="default: the physical cores, %(default)s")
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds for more rounds of a case than three")
    parser.add_argument("--quick", action="store_true",
                        help="one round of a few cases, disturbed or not, into results/speed_quick.json")  # fmt: skip
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
        render(RESULTS)
    return None


if __name__ == "__main__":
    main()
