"""What holds for all checks: no wrong answer is right, a right one is right in whatever form, nothing gets out."""

import asyncio
import dataclasses
import fractions
import functools
import inspect
import math
import os
import signal
import threading
import time

import numpy as np
import pytest
import torch

from persimmon_lab import checks
from persimmon_lab.checks import patience
from persimmon_lab.checks.marking import Exercise, Verdict
from persimmon_lab.mini import load_mini
from tests.checks.right_answers import ANSWERS, CHECKS, EXERCISES, SLOW, changed


@pytest.fixture(scope="module", autouse=True)
def one_model():
    """All checks share a shipped model; none changes it."""
    with pytest.MonkeyPatch.context() as patch:
        loaded = functools.cache(load_mini)
        for module in checks.__all__:
            patch.setattr(getattr(checks, module), "load_mini", loaded, raising=False)
        yield


def test_every_check_has_an_answer():
    assert set(CHECKS) == set(ANSWERS)
    assert len(CHECKS) - len(EXERCISES) == 23


# Wrong answers: a right one with its result changed, or with what it is given changed


OF_NUMBERS = {
    "sign": lambda y: -y,
    "clipped at 0": lambda y: y.clamp(min=0),
    "clipped at 1": lambda y: y.clamp(max=1),
    "magnitude": lambda y: y.abs(),
    "float16": lambda y: y.half(),
    "bfloat16": lambda y: y.bfloat16(),
    "one more": lambda y: y + 1,
    "one less": lambda y: y - 1,
    "twice": lambda y: 2 * y,
    "half": lambda y: y / 2,
    "square": lambda y: y.double().square(),
    "zero": torch.zeros_like,
    "one": torch.ones_like,
    "rounded": lambda y: y.double().round(),
    "rounded down": lambda y: y.double().floor(),
    "two decimals": lambda y: (100 * y.double()).round() / 100,
    "a thousandth more": lambda y: y * 1.001,
}
OF_AXES = {
    "constant": lambda y: torch.full_like(y.double(), float(y.double().mean())),
    "moved by one": lambda y: y.roll(1, -1),
    "reversed": lambda y: y.flip(-1),
    "first axis reversed": lambda y: y.flip(0),
    "the last is missing": lambda y: torch.cat((y[..., :-1], torch.zeros_like(y[..., -1:])), dim=-1),
    "mean for sum": lambda y: y / y.shape[-1],
    "mean of the first axis": lambda y: y.double().mean(0, keepdim=True).expand_as(y),
}
OF_MATRICES = {"transposed": lambda y: y.mT, "in another order": lambda y: y.mT.reshape(y.shape)}


def of_results(dimensions):
    """What may be done wrongly with a result of so many axes."""
    return OF_NUMBERS | (OF_AXES if dimensions else {}) | (OF_MATRICES if dimensions > 1 else {})


def of_tensors(tensor):
    yield "zero", torch.zeros_like(tensor)
    yield "one", torch.ones_like(tensor)
    if tensor.dim():
        yield "reversed", tensor.flip(-1)
        yield "the first alone", tensor[:1].expand_as(tensor)
    if tensor.is_floating_point():
        yield "negative", -tensor
        yield "without its sign", tensor.abs()
        yield "float16", tensor.half().to(tensor.dtype)
    elif tensor.dim():
        yield "0, 1, 2, …", torch.arange(tensor.shape[-1]).expand_as(tensor)
        yield "one more", tensor + 1


def of_inputs(case, first):
    """Names of what is done wrongly with one of the values that an answer is given, and the values instead."""
    for name, value in case.items():
        if isinstance(value, torch.Tensor):
            instead = of_tensors(value)
        elif isinstance(value, (int, float)):
            instead = [("zero", 0 * value), ("one", type(value)(1)), ("twice", 2 * value), ("negative", -value)]
            instead += [("one more", value + 1), ("one less", value - 1), ("always the first", first[name])]
        elif isinstance(value, (tuple, list)) and isinstance(value[0], torch.Tensor):
            instead = [("zero", type(value)(torch.zeros_like(item) for item in value)), ("reversed", value[::-1])]
            instead += [("the first alone", value[:1] * len(value))]
        else:
            instead = [("always the first", first[name])] if isinstance(value, torch.dtype) else []
        for what, other in instead:
            yield f"{name}: {what}", case | {name: other}


def wrong_answers(name):
    """Names and answers: the reference's with its result changed, with its inputs changed, and an input as it is."""
    exercise, cases = EXERCISES[name], list(EXERCISES[name].cases())
    for what, change in of_results(exercise.reference(**cases[-1]).dim()).items():
        yield what, changed(exercise.reference, change)

    def other(what):
        def answer(**case):
            return exercise.reference(**dict(of_inputs(case, cases[0]))[what])

        return answer

    for what in dict(of_inputs(cases[-1], cases[0])):
        yield what, other(what)
    for parameter, value in cases[0].items():
        if isinstance(value, (torch.Tensor, int, float)):
            yield f"returns {parameter}", lambda parameter=parameter, **case: case[parameter]


def cached(exercise):
    """The same exercise, whose cases and right answers are made once."""
    cases = list(exercise.cases())
    return dataclasses.replace(exercise, cases=lambda: cases)


# What a wrong answer cannot be told by, since it changes nothing.
NOT_NEGATIVE = ("clipped at 0", "magnitude")
AT_MOST_ONE = ("clipped at 1",)
WHOLE = ("rounded", "rounded down", "two decimals")
# A hundred-thousandth off is no mistake: what float16 makes of small numbers is within the tolerance.
TOLERATED = ("float16",)
HARMLESS = {
    "nb00_tour.cache_gigabytes": NOT_NEGATIVE,
    "nb00_tour.table_share": NOT_NEGATIVE + AT_MOST_ONE + TOLERATED,
    "nb01_tokens.count_cuts": (*NOT_NEGATIVE, *WHOLE, *TOLERATED, "bfloat16"),  # at most 256 cuts
    "nb01_tokens.log_probability_of_text": AT_MOST_ONE,
    "nb04_collisions.positions_that_share": NOT_NEGATIVE + WHOLE + TOLERATED,
    "nb05_attention.MASK": AT_MOST_ONE + WHOLE,  # 0 and the lowest number
    # Only the size of the weights counts.
    "nb05_bounds.largest_score": (*NOT_NEGATIVE, "query_weight: negative", "key_weight: negative"),
    "nb06_neurons.squared_relu_derivative": NOT_NEGATIVE,
    "nb06_neurons.same_numbers": ("activations: without its sign",),  # a square has none
    "nb06_neurons.highest_preactivation": ("norm_weight: negative",),  # it stands within a length
    "nb07_whole.answer_loss": NOT_NEGATIVE,
    "nb07_whole.parameter_count": NOT_NEGATIVE + WHOLE,
    "nb07_whole.clipping_factor": (*NOT_NEGATIVE, *AT_MOST_ONE, *TOLERATED, "gradients: reversed"),  # a length of all
    "nb08_remembering.longest_context": NOT_NEGATIVE + WHOLE + TOLERATED,
    "nb08_remembering.new_positions": (*NOT_NEGATIVE, *WHOLE, *TOLERATED, "bfloat16"),  # at most 7
    "nb09_choosing.temperature_for": (*NOT_NEGATIVE, "logits: reversed"),  # an entropy knows no order
    # 0 and 1, and the order of the logits is all that counts
    "nb09_choosing.nucleus": (
        *NOT_NEGATIVE, *AT_MOST_ONE, *WHOLE, *TOLERATED, "bfloat16", "square", "logits: float16"),
    # A power of two, of the size of a weight that is a number of float16
    "nb11_precision.half_step": (
        *NOT_NEGATIVE, *TOLERATED, "bfloat16", "weights: negative", "weights: without its sign", "weights: float16"),
    # Attention is between 0 and 1.
    "nb12_heads.sink_score": (
        *NOT_NEGATIVE, *AT_MOST_ONE, *TOLERATED, "patterns: without its sign", "patterns: float16"),
    "nb12_heads.induction_margin": (
        *AT_MOST_ONE, *TOLERATED, "repeated: without its sign", "repeated: float16", "shuffled: without its sign",
        "shuffled: float16"),
    "nb12_heads.following_score": (  # another name for every token
        *NOT_NEGATIVE, *AT_MOST_ONE, *TOLERATED, "patterns: without its sign", "patterns: float16", "ids: one more"),
    # Of the stream only its variance counts.
    "nb13_lens.head_share": ("stream: reversed", "stream: negative", "stream: float16"),
    "nb14_speed.find_the_bytes": NOT_NEGATIVE + WHOLE,
    "nb15_teaching.chat_labels": WHOLE,  # tokens are numbered
    "nb15_teaching.parts_of_the_loss": (*NOT_NEGATIVE, "losses: without its sign", "losses: float16"),  # means of many
    "nb16_machines.vocabulary_part": NOT_NEGATIVE + WHOLE,  # rows are numbered
    "nb16_machines.best_ranks": (*NOT_NEGATIVE, *WHOLE, *TOLERATED, "bfloat16"),  # at most 64 of them
    "nb17_evaluation.perfect_run": NOT_NEGATIVE + WHOLE + TOLERATED,  # a number of items
    "nb17_evaluation.paired_p": NOT_NEGATIVE + AT_MOST_ONE,
    "nb17_evaluation.best_of_seeds": (*NOT_NEGATIVE, *AT_MOST_ONE, *TOLERATED),
}  # fmt: skip


SOMETIMES = {"nb07_whole.answer_loss": {"logits: float16"}}  # by the logits of the model that ships


@pytest.mark.parametrize("name", EXERCISES)
def test_every_wrong_answer_is_refused(name):
    exercise = cached(EXERCISES[name])
    accepted = {what for what, answer in wrong_answers(name) if exercise(answer)}
    assert accepted - SOMETIMES.get(name, set()) == set(HARMLESS.get(name, ()))


# Of a question with many right answers, what else is right. Bounds, vectors that reach them and cheap matrices are
# measured by what they do, for which half of these changes are as good.
ALSO_RIGHT = {
    "nb03_rotary.stretch_frequencies": (*NOT_NEGATIVE, *AT_MOST_ONE, *TOLERATED, "bfloat16", "a thousandth more"),
    "nb04_collisions.two_turns": (*AT_MOST_ONE, "bfloat16", "a thousandth more"),  # it is asked for in bfloat16
    "nb05_attention.commuting_norm": (),
    "nb05_attention.left_padded_mask": AT_MOST_ONE + WHOLE,
    "nb06_neurons.skip_silent": (),
    "nb10_conversion.join": (),
    "nb11_precision.loss_scale": (*NOT_NEGATIVE, *WHOLE, "bfloat16", "twice", "half"),  # a power of two, with room
    "nb14_speed.skip_silent": (),
}


@pytest.mark.parametrize("name", ALSO_RIGHT)
def test_every_wrong_answer_to_an_open_question_is_refused(name):
    def as_tensor(change):
        return lambda result: change(torch.as_tensor(result))

    dimensions = 0 if name == "nb11_precision.loss_scale" else 2
    changes = {what: as_tensor(change) for what, change in of_results(dimensions).items()}
    accepted = {what for what, change in changes.items() if CHECKS[name](changed(ANSWERS[name], change))}
    assert accepted == set(ALSO_RIGHT[name])


OF_LISTS = {
    "nothing": lambda shown: ["" for _ in shown],
    "all at once": lambda shown: ["".join(shown), *[""] * (len(shown) - 1)],
    "all at the end": lambda shown: [*[""] * (len(shown) - 1), "".join(shown)],
    "one late": lambda shown: ["", *shown[:-1]],
    "one early": lambda shown: [*shown[1:], ""],
    "reversed": lambda shown: shown[::-1],
    "twice": lambda shown: [2 * text for text in shown],
    "capitals": lambda shown: [text.upper() for text in shown],
    "one letter more": lambda shown: [text + "x" for text in shown],
    "without spaces": lambda shown: [text.strip() for text in shown],
    "one list": lambda shown: "".join(shown),
    "one too few": lambda shown: shown[:-1],
    "one too many": lambda shown: [*shown, ""],
}


@pytest.mark.parametrize("what", OF_LISTS)
@pytest.mark.parametrize("name", ["nb01_tokens.stream_text", "nb09_choosing.shown_until"])
def test_every_wrong_screen_is_refused(name, what):
    assert not CHECKS[name](changed(ANSWERS[name], OF_LISTS[what]))


OF_VOCABULARIES = {
    "likelier": lambda scores: {piece: score / 2 for piece, score in scores.items()},
    "probabilities": lambda scores: {piece: math.exp(score) for piece, score in scores.items()},
    "sign": lambda scores: {piece: -score for piece, score in scores.items()},
    "long pieces alone": lambda scores: {piece: score for piece, score in scores.items() if len(piece) > 1},
    "nothing": lambda scores: {},
    "nan": lambda scores: dict.fromkeys(scores, math.nan),
    "text": lambda scores: dict.fromkeys(scores, "-1"),
}


@pytest.mark.parametrize("what", OF_VOCABULARIES)
def test_every_wrong_vocabulary_is_refused(what):
    name = "nb01_tokens.make_vocabulary"
    verdict = CHECKS[name](changed(ANSWERS[name], OF_VOCABULARIES[what]))
    assert not verdict


# Weights that are read although they need not be


@pytest.mark.parametrize(
    "clear",
    [
        lambda weight, silent: torch.where(silent, 0.0, weight),
        lambda weight, silent: weight.nan_to_num(),
        lambda weight, silent: weight.masked_fill(silent, 0.0),
        lambda weight, silent: weight.clone().index_fill_(1, silent.nonzero()[:, 0], 0.0),
        lambda weight, silent: weight.index_fill_(1, silent.nonzero()[:, 0], 0.0),
        lambda weight, silent: torch.nan_to_num(weight.mT).mT,
    ],
)
def test_a_weight_that_is_read_and_cleared_is_read(clear):
    def cleared(activations, weight, bias):
        return activations @ clear(weight, (activations == 0).all(dim=0)).mT + bias

    def cleared_for_one(neurons, weight, bias):
        return cleared(neurons[None], weight, bias)[0]

    assert "reads weights of neurons that no token needs" in repr(checks.nb06_neurons.skip_silent(cleared))
    assert "reads columns of silent neurons" in repr(checks.nb14_speed.skip_silent(cleared_for_one))


@pytest.mark.parametrize(
    "select",
    [
        lambda weight, columns: weight[:, columns],
        lambda weight, columns: weight.index_select(1, columns),
        lambda weight, columns: weight.mT[columns].mT,
        lambda weight, columns: weight.gather(1, columns.expand(len(weight), -1)),
        lambda weight, columns: torch.nn.functional.embedding(columns, weight.mT).mT,
        lambda weight, columns: torch.take_along_dim(weight, columns[None], dim=1),
        lambda weight, columns: torch.cat([weight[:, column : column + 1] for column in [*columns.tolist()]] or
                                          [weight[:, :0]], dim=1),
    ],
)  # fmt: skip
def test_selecting_reads_what_is_selected(select):
    def selected(activations, weight, bias):
        columns = activations.any(dim=0).nonzero()[:, 0]
        return activations[:, columns] @ select(weight, columns).mT + bias

    assert checks.nb06_neurons.skip_silent(selected)


def test_a_sparse_product_is_believed():
    assert checks.nb06_neurons.skip_silent(
        lambda activations, weight, bias: torch.sparse.mm(activations.to_sparse(), weight.mT) + bias
    )


# Right answers in another form


def renamed(answer):
    """The same with parameters of its own."""
    count = len(inspect.signature(answer).parameters)
    if count == 1:
        return lambda a: answer(a)
    if count == 2:
        return lambda a, b: answer(a, b)
    return lambda a, b, *others: answer(a, b, *others)


@pytest.mark.parametrize("name", sorted(set(CHECKS) - SLOW))
def test_parameters_may_have_other_names(name):
    check, answer = CHECKS[name], ANSWERS[name]
    if isinstance(check, Exercise):
        names = list(next(iter(check.cases())))

        def in_order(*values):
            return answer(**dict(zip(names, values, strict=True)))

        assert check(in_order)
    else:
        assert check(renamed(answer))


def test_values_go_by_name_where_there_is_one():
    assert checks.nb02_shapes.scores(lambda key, query: query @ key.mT / math.sqrt(query.shape[-1]))


NUMBERS = (float, np.float32, np.float64, np.asarray, torch.tensor, lambda y: torch.nn.Parameter(torch.tensor(y)))


@pytest.mark.parametrize("form", NUMBERS)
@pytest.mark.parametrize("name", [name for name, check in EXERCISES.items() if not check.axes])
def test_a_number_is_a_number(name, form):
    assert CHECKS[name](changed(ANSWERS[name], lambda result: form(float(result))))


@pytest.mark.parametrize("form", [int, np.int64, np.int32, np.uint64, torch.tensor, fractions.Fraction])
def test_a_whole_number_is_one(form):
    for name in ("nb08_remembering.longest_context", "nb04_collisions.positions_that_share", "nb01_tokens.count_cuts"):
        assert CHECKS[name](changed(ANSWERS[name], lambda result: form(int(result))))


@pytest.mark.parametrize("name", [name for name, check in EXERCISES.items() if check.axes])
def test_a_tensor_may_be_sparse_exact_or_remember_its_gradient(name):
    check, answer = cached(EXERCISES[name]), ANSWERS[name]
    assert check(changed(answer, lambda result: result.to_sparse()))
    assert check(changed(answer, lambda result: result.double()))
    assert check(changed(answer, lambda result: result.float().requires_grad_()))


# Nothing gets out


class Rebel(BaseException):
    """Not even an Exception."""


class Hostile:
    """Refuses everything that one may ask of a value."""

    def __getattr__(self, name):
        raise RuntimeError(name)

    def __eq__(self, other):
        raise RuntimeError("==")

    def __len__(self):
        raise RuntimeError("len")

    def __iter__(self):
        raise RuntimeError("iter")

    __hash__ = None


def raises(error):
    def answer(*_, **__):
        raise error

    return answer


def forever(*_, **__):
    while True:
        pass


def sleeps(*_, **__):
    time.sleep(2.0)


def deep(*_, **__):
    return deep()


def gives(value):
    return lambda *_, **__: value


ODD = {
    "bool": gives(torch.ones(2, 3, dtype=torch.bool)),
    "meta": gives(torch.zeros(2, 3, device="meta")),
    "sparse": gives(torch.eye(3).to_sparse()),
    "nested": gives(torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])),
    "complex": gives(torch.ones(2, 3, dtype=torch.complex64)),
    "empty": gives(torch.zeros(0)),
    "array": gives(np.zeros((2, 3))),
    "list": gives([1.0, 2.0]),
    "list of meta tensors": gives([torch.zeros(2, device="meta")] * 2),
    "dict": gives({"a": math.nan}),
    "generator": lambda *_, **__: iter([1, 2]),
    "class": gives(int),
    "hostile": gives(Hostile()),
    "exit": raises(SystemExit(1)),
    "interrupt": raises(KeyboardInterrupt()),
    "rebel": raises(Rebel()),
    "memory": raises(MemoryError()),
    "recursion": deep,
    "closed": raises(GeneratorExit()),
    "cancelled": raises(asyncio.CancelledError()),
    "assertion": raises(AssertionError()),
    "unicode": raises(ValueError("{brace} %s " + chr(0xD800))),
}


@pytest.mark.parametrize("name", CHECKS)
def test_whatever_an_answer_does_a_check_gives_a_verdict(name, capsys):
    for what, answer in ODD.items():
        verdict = CHECKS[name](answer)
        assert isinstance(verdict, Verdict)
        assert not verdict, what
        assert repr(verdict).startswith(("✗ not yet: ", "○ not answered yet: ")), what


@pytest.mark.parametrize("name", sorted(set(CHECKS) - SLOW))
def test_tensors_of_the_right_shape_without_its_numbers(name):
    def as_other(make):
        return lambda result: make(result) if isinstance(result, torch.Tensor) else result

    answer = ANSWERS[name]
    told = repr(CHECKS[name](changed(answer, as_other(lambda result: result.to("meta")))))
    assert told.startswith("✓") or "on the meta device" in told
    assert "cannot be marked" not in repr(CHECKS[name](changed(answer, as_other(lambda result: result.bool()))))


@pytest.mark.parametrize("name", CHECKS)
def test_an_endless_answer_is_interrupted_with_a_word(name, monkeypatch):
    monkeypatch.setattr(patience, "PATIENCE", 0.2)
    monkeypatch.setattr(checks.nb07_copying, "LONG", 0.2)
    monkeypatch.setattr(checks.nb09_sampler, "LONG", 0.2)
    before = threading.active_count()
    started = time.monotonic()
    assert repr(CHECKS[name](forever)) == (
        "✗ not yet: it was given up on after 0.2 seconds; does every loop come to an end?"
    )
    assert time.monotonic() - started < 20
    assert threading.active_count() == before, "and the loop has ended"


def test_a_sleeping_answer_is_left_to_itself(monkeypatch):
    monkeypatch.setattr(patience, "PATIENCE", 0.1)
    started = time.monotonic()
    assert "given up on" in repr(checks.nb02_shapes.merge_heads(sleeps))
    assert time.monotonic() - started < 2.0


@pytest.mark.skipif(os.name == "nt", reason="a thread that waits hears no interrupt there")
def test_the_keyboard_interrupts_the_check_and_the_answer():
    before = threading.active_count()

    def pressed(heads):
        os.kill(os.getpid(), signal.SIGINT)
        forever()

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a run in the background ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            checks.nb02_shapes.merge_heads(pressed)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert threading.active_count() == before


def test_answers_may_print_and_sleep(capsys):
    def chatty(heads):
        print("here")
        time.sleep(0.01)
        return ANSWERS["nb02_shapes.merge_heads"](heads)

    assert checks.nb02_shapes.merge_heads(chatty)
    assert capsys.readouterr().out == "here\n" * 3


def test_what_is_no_function_is_told_so(unchecked_annotations):
    for value in (None, 3, torch.zeros(2)):
        assert "a check takes the function itself" in repr(checks.nb02_shapes.merge_heads(value))


def test_parameters_that_do_not_fit_are_listed():
    told = repr(checks.nb02_shapes.scores(lambda query: query))
    assert "it takes (query), and is given (query, key)" in told


# What is said of numbers that are off


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_named(dtype):
    half = str(dtype).removeprefix("torch.")
    for change in (lambda result: result.to(dtype), lambda result: result.to(dtype).float()):
        told = repr(checks.nb02_shapes.scores(changed(ANSWERS["nb02_shapes.scores"], change)))
        assert f"as {half} rounds; compute in the dtype of what you are given" in told


def test_an_error_is_told_by_its_size():
    told = repr(checks.nb02_shapes.scores(changed(ANSWERS["nb02_shapes.scores"], lambda y: y + 0.25)))
    assert "off by up to 0.25, among numbers up to " in told
    assert "rounds" not in told


def test_float16_is_named_where_it_ends():
    told = repr(checks.nb06_neurons.squared_relu_derivative(lambda x: (1000 * x).half()))
    assert "not finite (inf or nan); float16 ends at 65,504" in told
