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
    refused: dict[str, str] = {}
    rounds: list[dict] = []
    thrown = 0
    disturbed = 0

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
            answers[name] = sample.answer
            thrown += bad
            disturbed += sample.contended
        return answers

    start = time.perf_counter()
    first = take_round(0)
    if time.perf_counter() - start > LONG_ROUND:
        rounds.append(first)
        fewest = min(fewest, 2)
    else:
        thrown = disturbed = 0
    start = time.perf_counter()
    while first.keys() - {LIMITS} and (
        len(rounds) < fewest or (len(rounds) < MOST and time.perf_counter() - start < budget)
    ):
        rounds.append(take_round(retries))
    return {**case, **summary(case, rounds), "rounds": len(rounds), "thrown_away": thrown, "contended": disturbed,
            "refused": refused, "samples": rounds}  # fmt: skip


def summary(case: dict, rounds: list[dict]) -> dict:
    """Medians of the rates, and of the ratios within each round: ours over each other, each over the limit."""

    def medians(of, *beside: str) -> dict:
        """Of what `of(round, name)` is, by contender, over the rounds that have it and those `beside` it."""
        by_contender = {}
        for name in case["contenders"]:
            values = [of(answers, name) for answers in rounds if {name, *beside} <= answers.keys()]
            by_contender |= {name: statistics.median(values)} if values else {}
        return by_contender

    limits = [answers[LIMITS] for answers in rounds if LIMITS in answers]
    ratios = medians(lambda answers, name: answers["ours"]["rate"] / answers[name]["rate"], "ours")
    return {
        "rates": medians(lambda answers, name: answers[name]["rate"]),
        "ratios": {name: ratio for name, ratio in ratios.items() if name != "ours"},
        "limits": {of: statistics.median(limit[of] for limit in limits) for of in (limits or [{}])[0]},
        "of_limit": medians(lambda answers, name: answers[name]["rate"] / limit_rate(case, answers[LIMITS]), LIMITS),
        "first_token": medians(lambda answers, name: answers[name]["first"]) if case["kind"] in LIMITED else {},
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
