"""How a case is measured: rounds in which every contender works once, in turn, beside the machine's limits."""

import os
import statistics
import time

from benchmarks.cases import LIMITED, limit_rate
from benchmarks.contenders import Contender, Refused
from benchmarks.quiet import RETRIES, quiet_sample

LIMITS = "limits"
BUDGET = 15.0  # seconds that more rounds than the fewest may take
FEWEST, MOST = 3, 9  # rounds, after one that warms up
LONG_ROUND = 60.0  # seconds: after a round of this length two rounds do, and it is one of them


def measure(
    case: dict, workers: dict[str, Contender], budget: float = BUDGET, fewest: int = FEWEST, retries: int = RETRIES
) -> dict:
    """Samples of every contender, and what follows from them. The first round only warms up, unless it was long."""
    pids = [os.getpid(), *(worker.process.pid for worker in workers.values())]
    tasks = {name: (case["kind"], case["arguments"]) for name in case["contenders"] if name in workers}
    if LIMITS in workers and case["kind"] in LIMITED:
        tasks[LIMITS] = (LIMITS, {"size": case["size"], "dtype": case["dtype"]})
    refused, kept, thrown, disturbed = {}, [], 0, 0

    def take_round(retries: int) -> dict:
        nonlocal thrown, disturbed
        answers = {}
        for name in [name for name in tasks if name not in refused]:
            task, arguments = tasks[name]
            try:
                sample, bad = quiet_sample(lambda: workers[name].ask(task, **arguments), pids, retries)  # noqa: B023
            except Refused as refusal:
                refused[name] = str(refusal)[:300]
                continue
            answers[name], thrown, disturbed = sample.answer, thrown + bad, disturbed + sample.contended
        return answers

    start = time.perf_counter()
    first = take_round(0)
    if time.perf_counter() - start > LONG_ROUND:
        kept, fewest = [first], min(fewest, 2)
    else:
        thrown = disturbed = 0
    start = time.perf_counter()
    while first.keys() - {LIMITS} and (
        len(kept) < fewest or (len(kept) < MOST and time.perf_counter() - start < budget)
    ):
        kept.append(take_round(retries))
    return {**case, **summary(case, kept), "rounds": len(kept), "thrown_away": thrown, "contended": disturbed,
            "refused": refused, "samples": kept}  # fmt: skip


def summary(case: dict, rounds: list[dict]) -> dict:
    """Medians of the rates, and of the ratios within each round: ours over each other, each over the limit."""

    def medians(of, *beside: str) -> dict:
        """Of what `of(round, name)` is, by contender, over the rounds that have it and those `beside` it."""
        found = {}
        for name in case["contenders"]:
            values = [of(each, name) for each in rounds if all(needed in each for needed in (name, *beside))]
            found |= {name: statistics.median(values)} if values else {}
        return found

    limits = [each[LIMITS] for each in rounds if LIMITS in each]
    ratios = medians(lambda each, name: each["ours"]["rate"] / each[name]["rate"], "ours")
    return {
        "rates": medians(lambda each, name: each[name]["rate"]),
        "ratios": {name: ratio for name, ratio in ratios.items() if name != "ours"},
        "limits": {of: statistics.median(each[of] for each in limits) for of in (limits or [{}])[0]},
        "of_limit": medians(lambda each, name: each[name]["rate"] / limit_rate(case, each[LIMITS]), LIMITS),
        "first_token": medians(lambda each, name: each[name]["first"]) if case["kind"] in LIMITED else {},
    }


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
