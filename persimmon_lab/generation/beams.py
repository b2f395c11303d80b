"""Beam search: of all continuations, carry the `num_beams` most probable texts on, instead of one.

A text's score is the sum of its tokens' log-probabilities over its number of new tokens to the power `length_penalty`:
0 compares sums, which favours short texts; 1 the mean per token. A text that ends is put aside, and its place goes to
the next best. Names, scores and the order of things are transformers' (5.x), and so are the resulting ids. Only the
filling differs: ended rows are filled with `pad_token_id`, also where that is 0, which transformers takes for none.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor

from persimmon_lab.generation.context import Context
from persimmon_lab.generation.sampling import REMOVED, LogitsProcessor, shape_scores
from persimmon_lab.generation.steps import DecodingStep
from persimmon_lab.generation.stopping import Ending
from persimmon_lab.generation_config import GenerationConfig


@dataclass(frozen=True, eq=False)
class BeamStep(DecodingStep):
    """One step of all beams: a row is a running beam, (batch beam), the best one of each prompt first.

    A beam may continue any beam of the step before, so rows change places and `sequences` says what they hold; `logits`
    and `scores` (log-probabilities after penalties and filters) are those that the row's token was chosen from.
    """

    best: Int[Tensor, "answer longest"]
    """The answers, `num_return_sequences` a prompt, if it ended here."""
    best_scores: Float[Tensor, "answer"]

    @property
    def result(self) -> Int[Tensor, "answer longest"]:
        return self.best

    @property
    def result_scores(self) -> Float[Tensor, "answer"]:
        return self.best_scores


@dataclass
class Shelf:
    """The best texts put aside, for each prompt `num_beams` places, the best first; an empty one has score -inf."""

    texts: Int[Tensor, "batch place room"]
    lengths: Int[Tensor, "batch place"]
    scores: Float[Tensor, "batch place"]

    def with_texts(
        self, texts: Int[Tensor, "batch new position"], scores: Float[Tensor, "batch new"], filler: int
    ) -> "Shelf":
        """The best of what is there and of `texts`; those with score -inf are none."""
        length, room = texts.shape[-1], self.texts.shape[-1]
        texts = torch.cat([self.texts, F.pad(texts, (0, room - length), value=filler)], dim=1)
        lengths = torch.cat([self.lengths, torch.full_like(scores, length, dtype=torch.int64)], dim=1)
        scores, order = torch.cat([self.scores, scores], dim=1).topk(self.scores.shape[1])
        rows = rearrange(torch.arange(len(order), device=order.device), "batch -> batch 1")
        return Shelf(texts[rows, order], lengths[rows, order], scores)

    @property
    def full(self) -> Tensor:
        return self.scores.isfinite().all(dim=1, keepdim=True)


def beam_steps(
    context: Context,
    config: GenerationConfig,
    ending: Ending,
    new_tokens: int,
    processors: Sequence[LogitsProcessor] | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[BeamStep]:
    """Decode `context` with `config.num_beams` beams a prompt; with `do_sample` candidates are drawn, not the best."""
    batch, beams, device = context.ids.shape[0], config.num_beams, context.ids.device
    endings = len(config.eos_token_ids())
    wanted = beams * max(2, 1 + endings)  # so that enough go on, even if every beam's best tokens end it
    prompt_of_row = repeat(torch.arange(batch, device=device), "batch -> (batch beam)", beam=beams)
    first_row = rearrange(torch.arange(batch, device=device) * beams, "batch -> batch 1")

    running = torch.full((batch, beams), REMOVED, device=device)
    running[:, 0] = 0.0  # all beams begin equal; only one may be continued, or all would stay equal
    room = context.ids.shape[1]
    shelf = Shelf(context.ids.new_zeros(batch, beams, room), context.ids.new_zeros(batch, beams), running + REMOVED)
    can_improve = torch.ones(batch, 1, dtype=torch.bool, device=device)

    for count in range(1, new_tokens + 1):
        with torch.no_grad():
            logits = context.next_logits()
            if count == 1:  # the prompt is read once for all beams
                logits = logits[prompt_of_row]
                context.keep(prompt_of_row)
            log_probs = logits.log_softmax(dim=-1)
            may_end = count > config.least_new_tokens(context.prompt_width)
            scores = shape_scores(
                log_probs, context.sequences, config, context.visible, processors, 1 + (endings or 1), may_end
            )

            # The best continuations of each prompt, whichever beam they continue.
            sums = rearrange(scores, "(batch beam) vocab -> batch beam vocab", beam=beams)
            sums = rearrange(sums + rearrange(running, "batch beam -> batch beam 1"), "b beam vocab -> b (beam vocab)")
            if config.do_sample:
                places = torch.multinomial(sums.softmax(dim=-1), wanted, generator=generator)
            else:
                places = sums.topk(min(wanted, sums.shape[1])).indices
            sums = sums.gather(1, places)
            parents, tokens = first_row + places // scores.shape[1], places % scores.shape[1]
            texts = torch.cat([context.sequences[parents], rearrange(tokens, "batch text -> batch text 1")], dim=-1)
            ends = rearrange(ending(rearrange(texts, "b text p -> (b text) p"), scores), "(b text) -> b text", b=batch)
            if count == new_tokens:
                ends = torch.ones_like(ends)

            # Those that end are put aside, if they are among the best and their prompt is still looking.
            closed = ~can_improve | (shelf.full if config.early_stopping is True else False)
            aside = (sums / count**config.length_penalty).masked_fill(~ends | closed, REMOVED)
            shelf = shelf.with_texts(texts[:, :beams], aside[:, :beams], ending.filler)
            # The best of the others run on.
            running, chosen = sums.masked_fill(ends, REMOVED).topk(beams)
            parents = rearrange(parents.gather(1, chosen), "batch beam -> (batch beam)")
            token_ids = rearrange(tokens.gather(1, chosen), "batch beam -> (batch beam)")
            context.keep(parents)
            context.append(token_ids)

            longest = new_tokens if config.early_stopping == "never" and config.length_penalty > 0 else count
            within_reach = running[:, :1] / longest**config.length_penalty
            can_improve = can_improve & (within_reach > shelf.scores[:, -1:])
            stop = ends.all() | ~can_improve.any() | (shelf.full.all() if config.early_stopping is True else False)

            # Where it ends early, the running beams are answers too.
            average = (running / count**config.length_penalty).masked_fill(shelf.full, REMOVED)
            texts = rearrange(context.sequences, "(batch beam) position -> batch beam position", beam=beams)
            best, lengths, best_scores = (
                rearrange(values[:, : config.num_return_sequences], "batch answer ... -> (batch answer) ...")
                for values in vars(shelf.with_texts(texts, average, ending.filler)).values()
            )
            unfinished = rearrange(running.isfinite(), "batch beam -> (batch beam)")
        is_last = bool(stop)
        if is_last and (forbidden := int(best_scores.isneginf().sum())):
            warnings.warn(
                f"{forbidden} of {best_scores.numel()} answers have a score of -inf: the processors forbid them and "
                "allow no others; ask for fewer num_return_sequences",
                stacklevel=2,
            )
        yield BeamStep(
            token_ids, logits[parents], scores[parents], context.sequences, unfinished, is_last, context.cache, config,
            best=best[:, : int(lengths.max())], best_scores=best_scores,
        )  # fmt: skip
        if is_last:
            return
