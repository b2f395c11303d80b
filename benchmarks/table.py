"""What was measured, as tables between markers in Markdown files and as a roofline: `./lab bench --render`."""

import json
import re
from pathlib import Path

import torch

from benchmarks.picture import SPEED, draw_decoding
from benchmarks.sizes import HERE, SIZES
from persimmon_lab import PersimmonConfig
from persimmon_lab.fitting.roofline import bytes_per_step, flops
from persimmon_lab.viz.roofline import plot_roofline

ROOT = HERE.parent
PICTURE = ROOT / "docs" / "pictures" / "roofline.png"
SDPA, OLD = "transformers 5 sdpa", "transformers 4.37.2"
ROW = {"decode": "decode, batch {batch}, after {prompt}", "prefill": "prompt of {length}", "train": "training step"}

# Size, dtype, kind, argument, contender (or its share of the limit), against whom, at least how much.
GOALS = [
    *[(size, dtype, "decode", 1, "ours", SDPA, least) for size, dtype, least in
      [("S", "float32", 2.0), ("S", "bfloat16", 1.9), ("M", "bfloat16", 1.6), ("M", "float32", 1.8)]],
    *[(size, dtype, "decode", 8, "ours", SDPA, 1.6) for size in ("mini", "S", "M")
      for dtype in ("float32", "bfloat16")],
    *[("M", dtype, "decode", 1, "ours int8", SDPA, 2.8) for dtype in ("float32", "bfloat16")],
    *[("M", dtype, "decode", 1, "ours", "limit", 0.75) for dtype in ("float32", "bfloat16")],
    ("M", "float32", "prefill", 2048, "ours", SDPA, 1.5),
    ("M", "bfloat16", "prefill", 2048, "ours", SDPA, 1.05),
    *[("M", dtype, "prefill", 2048, "ours", OLD, 3.0) for dtype in ("float32", "bfloat16")],
    *[("S", dtype, "train", 256, "ours", peer, 1.0) for dtype in ("float32", "bfloat16")
      for peer in (SDPA, "transformers 5 eager", OLD)],
]  # fmt: skip


def find(cases: list[dict], size: str, dtype: str, kind: str, number: int | None = None) -> dict | None:
    """The case whose batch (decode) or length (else) is `number`."""
    name = "batch" if kind == "decode" else "length"
    fits = (case for case in cases if (case["size"], case["dtype"], case["kind"]) == (size, dtype, kind))
    return next((case for case in fits if number is None or case["arguments"].get(name) == number), None)


def reached(case: dict | None, contender: str, against: str) -> float | None:
    """The measured ratio, or share of the limit; None where it was not measured."""
    if case is None:
        return None
    if against == "limit":
        return case.get("of_limit", {}).get(contender)
    if contender == "ours":
        return case["ratios"].get(against)
    rounds = [answers for answers in case["samples"] if contender in answers and against in answers]
    ratios = sorted(answers[contender]["rate"] / answers[against]["rate"] for answers in rounds)
    return ratios[len(ratios) // 2] if ratios else None


def times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def table(cases: list[dict], kinds: tuple[str, ...], sizes: tuple[str, ...] = ("mini", "S", "M", "8b")) -> str:
    """Our rate, its ratios against the peers, and its share of the limit."""
    lines = ["| model | | tokens/s | × 5.23 sdpa | × 5.23 eager | × 4.37.2 | of the limit |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    for case in sorted(
        cases, key=lambda case: (sizes.index(case["size"]) if case["size"] in sizes else 9, case["dtype"])
    ):
        if case["kind"] not in kinds or case["size"] not in sizes or "ours" not in case["rates"]:
            continue
        ratios, share = case["ratios"], case.get("of_limit", {}).get("ours")
        peers = [times(ratios.get(name)) for name in (SDPA, "transformers 5 eager", OLD)]
        cells = [f"{case['size']} {case['dtype']}", ROW[case["kind"]].format(**case["arguments"]),
                 f"{case['rates']['ours']:,.0f}", *peers, "" if share is None else f"{share:.0%}"]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def goals(cases: list[dict]) -> str:
    lines = ["| goal | asked | reached | |", "|---|---|---|---|"]
    for size, dtype, kind, number, contender, against, least in GOALS:
        value = reached(find(cases, size, dtype, kind, number), contender, against)
        verdict = "not measured" if value is None else "met" if value >= least else "**not met**"
        lines.append(
            f"| {contender}, {size} {dtype} {kind} {number}, against {against} | {least} | {times(value)} | {verdict} |"
        )
    prompts = [case for case in cases if case["kind"] == "prefill" and SDPA in case.get("ratios", {})]
    slowest = min(((case["ratios"][SDPA], case) for case in prompts), key=lambda pair: pair[0], default=None)
    if slowest:
        value, case = slowest
        where = f"slowest at {case['size']} {case['dtype']} {case['arguments']['length']}"
        lines.append(f"| prefill nowhere slower than {SDPA} ({where}) | 1.0 | {times(value)} | "
                     f"{'met' if value >= 1 else '**not met**'} |")  # fmt: skip
    for case in cases:
        for name, answer in case.get("answers", {}).items():
            if case["kind"] == "memory" and case["size"] == "M":
                total, way = answer["peak"] / 2**30, "in chunks" if case["arguments"].get("chunked") else "whole"
                verdict = ("met" if total < 4 else "**not met**") if name.startswith("ours") else ""
                lines.append(f"| {name}: memory for {case['arguments']['length']:,} tokens, {way}, in all | "
                             f"4 GiB | {total:.2f} GiB | {verdict} |")  # fmt: skip
            if case["kind"] == "int8":
                lines.append(f"| int8, bits per byte of persimmon-mini's model card | | {answer['engine']:.4f} "
                             f"(plain {answer['plain']:.4f}) | |")  # fmt: skip
        if case["kind"] == "widget" and case["samples"]:
            costs = sorted(answers["ours"]["cost"] for answers in case["samples"] if "ours" in answers)
            cost = costs[len(costs) // 2] if costs else None
            if cost is not None:
                lines.append(f"| the playground's share of decode time | under 10% | {cost:.0%} | "
                             f"{'met' if cost < 0.1 else '**not met**'} |")  # fmt: skip
    return "\n".join(lines)


def insert(path: Path, name: str, text: str) -> bool:
    """Put text between `<!-- name -->` and `<!-- /name -->`; False where the file has no such markers."""
    if not path.exists():
        return False
    page = path.read_text(encoding="utf-8")
    marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if not marked.search(page):
        return False
    path.write_text(marked.sub(lambda match: f"{match[1]}\n{text}\n\n{match[2]}", page), encoding="utf-8")
    return True


def points(cases: list[dict], dtype: str, size: str = "M") -> dict[str, tuple[float, float]]:
    """For the roofline: operations per byte, and operations a second, of our decoding and prompts."""
    by_name = {}
    for case in cases:
        if (case["size"], case["dtype"]) != (size, dtype) or "ours" not in case.get("rates", {}):
            continue
        config, kind, rate = PersimmonConfig(**SIZES[size]), getattr(torch, dtype), case["rates"]["ours"]
        if case["kind"] == "decode":
            batch = case["arguments"]["batch"]
            past = case["arguments"]["prompt"] + case["arguments"]["new"] // 2
            work, moved = flops(config, 1, past, batch), bytes_per_step(config, kind, past, batch)
            by_name[f"decode, batch {batch}"] = (work / moved, work * rate / batch)
        elif case["kind"] == "prefill":
            length = case["arguments"]["length"]
            work = flops(config, length)
            by_name[f"prompt of {length}"] = (work / bytes_per_step(config, kind), work * rate / length)
    return by_name


def draw(cases: list[dict], path: Path = PICTURE, size: str = "M", dtype: str = "bfloat16") -> bool:
    """The roofline of one size and dtype; False where nothing of it was measured."""
    marks = points(cases, dtype, size)
    roofs = [case["limits"] for case in cases if (case["size"], case["dtype"]) == (size, dtype) and case.get("limits")]
    if not marks or not roofs:
        return False
    best = {name: sorted(roof[name] for roof in roofs)[len(roofs) // 2] for name in ("bandwidth", "matrix")}
    figure = plot_roofline(marks, best["bandwidth"], best["matrix"], title=f"Size {size}, {dtype}, random weights")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return True


def render(results: Path, folder: Path = ROOT, picture: Path = PICTURE, speed: Path = SPEED):
    """Into benchmarks/README.md (markers `speed` and `goals`), README.md (`speed`) and the two pictures."""
    cases = list(json.loads(results.read_text(encoding="utf-8"))["cases"].values())
    timed = [case for case in cases if "rates" in case]
    for path, name, text in [
        (folder / "benchmarks" / "README.md", "speed", table(timed, ("decode", "prefill", "train"))),
        (folder / "benchmarks" / "README.md", "goals", goals([*timed, *(c for c in cases if "answers" in c)])),
        (folder / "README.md", "speed", table(timed, ("decode",), ("M",))),
    ]:
        if not insert(path, name, text):
            print(f"{path} has no place for it: <!-- {name} --> … <!-- /{name} -->")
    if not draw(timed, picture):
        print(f"nothing measured at size M in bfloat16 yet: no {picture.name}")
    if not draw_decoding(timed, speed):
        print(f"no decoding measured at size M yet: no {speed.name}")
