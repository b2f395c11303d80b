"""Every check by its name, with an answer that is right: what the tests of all checks start from."""

import functools
import inspect
import math

from persimmon_lab import checks
from persimmon_lab.checks.marking import Exercise, Verdict
from tests.checks.test_nb01_tokens import TEXT, hold_back, of_words
from tests.checks.test_nb02_shapes import by_lengths
from tests.checks.test_nb04_collisions import composed
from tests.checks.test_nb05_attention import norm
from tests.checks.test_nb05_bounds import alternating, by_singular_values
from tests.checks.test_nb06_neurons import columns_of_the_union
from tests.checks.test_nb06_prediction import cut_to_what_was_heard
from tests.checks.test_nb07_copying import trained
from tests.checks.test_nb08_caches import TurnsAgain, update
from tests.checks.test_nb09_choosing import streamed
from tests.checks.test_nb09_sampler import above
from tests.checks.test_nb11_precision import below_the_ceiling, overflowing_layers
from tests.checks.test_nb12_naming import looking
from tests.checks.test_nb14_speed import picked
from tests.checks.test_nb15_teaching import on_what_was_read
from tests.checks.test_nb17_evaluation import runs_in_common


def keep_the_fast(frequencies, factor, trained_length):
    turns = frequencies * trained_length / (2 * math.pi)
    fast = ((turns - 1) / 31).clamp(0, 1)
    return frequencies * fast + frequencies / factor * (1 - fast)


OF_FUNCTIONS = {
    "nb01_tokens.stream_text": hold_back,
    "nb01_tokens.make_vocabulary": of_words,
    "nb02_shapes.which_layout": by_lengths,
    "nb03_rotary.stretch_frequencies": keep_the_fast,
    "nb04_collisions.two_turns": lambda positions, table: composed(positions, table),
    "nb05_attention.commuting_norm": lambda x, weight, bias, rotary_dim, eps: norm(x, weight, bias, rotary_dim, eps),
    "nb05_attention.left_padded_mask": checks.nb05_attention.MASK.reference,
    "nb05_bounds.reach_the_bound": alternating,
    "nb05_bounds.tight_bound": by_singular_values,
    "nb06_neurons.skip_silent": columns_of_the_union,
    "nb06_prediction.cheap_weight": cut_to_what_was_heard,
    "nb07_copying.shortest_training": lambda draw, generator: trained(draw, generator),
    "nb08_caches.reserved_update": lambda layer, key, value: update(layer, key, value),
    "nb08_caches.unrotated_cache": TurnsAgain,
    "nb09_choosing.shown_until": lambda pieces, stop: streamed(pieces, stop),
    "nb09_sampler.my_sampler": above(0.05),
    "nb10_conversion.join": checks.nb10_conversion.joined,
    "nb11_precision.loss_scale": below_the_ceiling,
    "nb11_precision.choose_islands": overflowing_layers,
    "nb12_naming.name_a_head": looking,
    "nb14_speed.skip_silent": picked,
    "nb15_teaching.fit_head": on_what_was_read,
    "nb17_evaluation.spot_contaminated": runs_in_common,
}  # fmt: skip


def all_checks():
    """Name to check, as readers call it: the exercises and the functions that give a verdict."""
    found = {}
    for module in checks.__all__:
        for name, value in vars(getattr(checks, module)).items():
            if isinstance(value, Exercise) or _gives_a_verdict(value, f"persimmon_lab.checks.{module}"):
                found[f"{module}.{name}"] = value
    return found


def _gives_a_verdict(value, module):
    return inspect.isfunction(value) and value.__module__ == module and value.__annotations__.get("return") is Verdict


CHECKS = all_checks()
CHECKS["nb01_tokens.make_vocabulary"] = functools.partial(checks.nb01_tokens.make_vocabulary, text=TEXT)
EXERCISES = {name: check for name, check in CHECKS.items() if isinstance(check, Exercise)}
ANSWERS = {name: check.reference for name, check in EXERCISES.items()} | OF_FUNCTIONS
# A right answer takes half a minute to be marked, or a wrong one that looks right does.
SLOW = {"nb07_copying.shortest_training", "nb09_sampler.my_sampler", "nb12_naming.name_a_head"}


def changed(answer, change):
    """An answer whose result is changed, with the parameters of the answer itself."""

    @functools.wraps(answer)
    def of_another_result(*given, **named):
        return change(answer(*given, **named))

    return of_another_result
