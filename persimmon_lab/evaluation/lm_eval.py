"""Our models in EleutherAI's lm-evaluation-harness: its `LM` class on this package's model, tokenizer and engines.

    import lm_eval
    from persimmon_lab.evaluation.lm_eval import PersimmonLM

    lm_eval.simple_evaluate(model=PersimmonLM(*load_mini()), tasks=[…])

Texts are cut into tokens as the harness cuts them: spaces at the end of a context belong to the continuation, and so
does whatever of a piece reaches past the border. A context that does not fit loses its beginning, and that is told.
"""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, TypeVar

import torch
from einops import rearrange
from tqdm import tqdm

from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.tokenizer import PersimmonTokenizer

try:
    from lm_eval import utils
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import TemplateLM
    from lm_eval.models.utils import normalize_gen_kwargs
except ImportError as error:
    raise ImportError(
        f"persimmon_lab.evaluation.lm_eval needs EleutherAI's harness ({error}): pip install lm-eval"
    ) from error

NEW_TOKENS = 256  # of an answer, where a task does not say; the harness's own number
Request = tuple[tuple[str, str] | None, list[int], list[int]]  # (texts for the harness's cache, context, continuation)
Row = TypeVar("Row")


class PersimmonLM(TemplateLM):  # type: ignore[misc]  # the harness has no types
    """A model and its tokenizer as the harness asks them, `batch_size` requests of like length at once.

    Raises ValueError for a continuation or a wish for new tokens that leaves no room for a context.
    """

    def __init__(self, model: PersimmonForCausalLM, tokenizer: PersimmonTokenizer, batch_size: int = 16) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; give 1 or more")
        end = tokenizer.eos_token_id
        if end is None:
            raise ValueError("the tokenizer has no eos_token, and the harness ends texts with it; set one")
        self.model, self.tokenizer, self.batch_size, self._end = model, tokenizer, batch_size, end
        self.max_length = model.config.context_limit

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def eot_token_id(self) -> int:
        return self._end

    @property
    def prefix_token_id(self) -> int:
        """What a text without a context comes after."""
        bos = self.tokenizer.bos_token_id
        return self.eot_token_id if bos is None else bos

    @property
    def tokenizer_name(self) -> str:
        """Names the harness's cache of requests: the folder that the tokenizer came from."""
        return str(getattr(self.tokenizer, "name_or_path", "") or type(self.tokenizer).__name__).replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """The ids; by default with the tokenizer's own special tokens, but never a second bos."""
        if add_special_tokens is None:
            bos = self.tokenizer.bos_token
            add_special_tokens = not (bos and string.startswith(bos))
        return list(self.tokenizer.encode(string, add_special_tokens=add_special_tokens))

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return str(
            self.tokenizer.apply_chat_template(
                chat_history, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        )

    def _loglikelihood_tokens(
        self, requests: Sequence[Request], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        """(the natural log-probability of each continuation, whether greedy decoding would write it)."""
        limit = self.max_length
        if too_long := max((len(after) for _, _, after in requests if len(after) > limit), default=0):
            raise ValueError(f"a continuation of {too_long} tokens, and the model has {limit} positions")
        # The last token is predicted and not read.
        _tell_cut(sum(len(before) + len(after) - 1 > limit for _, before, after in requests), len(requests), limit)
        found: list[tuple[float, bool] | None] = [None] * len(requests)
        order = sorted(range(len(requests)), key=lambda index: len(requests[index][1]) + len(requests[index][2]))
        for chosen in self._batches(order, "loglikelihood", disable_tqdm):
            rows = [[*requests[index][1], *requests[index][2]][-limit - 1 :] for index in chosen]
            batch = self._padded([row[:-1] for row in rows])
            longest = max(len(requests[index][2]) for index in chosen)
            with torch.no_grad():
                logits = self.model(**batch, use_cache=False, logits_to_keep=longest).logits
            scores = logits.to(torch.float32).log_softmax(dim=-1)
            for index, predicted in zip(chosen, scores):
                texts, after = requests[index][0], requests[index][2]
                own = predicted[longest - len(after) :]
                wanted = torch.tensor(after, device=own.device)
                value = own.gather(-1, rearrange(wanted, "position -> position 1")).sum()
                found[index] = float(value), bool((own.argmax(dim=-1) == wanted).all())
                if texts is not None:
                    self.cache_hook.add_partial("loglikelihood", texts, found[index])
        return [one for one in found if one is not None]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """The natural log-probability of whole texts, in windows that do not overlap, each after one token."""
        windows: list[tuple[int, Request]] = []
        for number, (text,) in enumerate(request.args for request in requests):
            ids = self.tok_encode(text)
            for window in utils.get_rolling_token_windows(ids, self.prefix_token_id, self.max_length, context_len=1):
                windows.append((number, (None, *utils.make_disjoint_window(window))))
        totals = [0.0] * len(requests)
        scores = self._loglikelihood_tokens([window for _, window in windows], disable_tqdm)
        for (number, _), (value, _) in zip(windows, scores, strict=True):
            totals[number] += value
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """What the model writes after each context, up to the first of its stop strings, which is left out."""
        found: list[str] = [""] * len(requests)
        settings = [json.dumps(request.args[1], sort_keys=True) for request in requests]
        ids = [self.tok_encode(request.args[0]) for request in requests]
        order = sorted(range(len(requests)), key=lambda index: (settings[index], len(ids[index])))
        for _, alike in groupby(order, key=settings.__getitem__):
            group = list(alike)
            given: Mapping[str, Any] = requests[group[0]].args[1]
            wishes, until, new_tokens = self._wishes(given)
            room = self.max_length - new_tokens
            _tell_cut(sum(len(ids[index]) > room for index in group), len(group), room)
            for chosen in self._batches(group, "generate_until", disable_tqdm):
                batch = self._padded([ids[index][-room:] for index in chosen])
                made: Any = self.model.generate(
                    batch["input_ids"], attention_mask=batch["attention_mask"], max_new_tokens=new_tokens, **wishes
                )
                for index, row in zip(chosen, made[:, batch["input_ids"].shape[1] :].tolist()):
                    text = self.tokenizer.decode(row, skip_special_tokens=True)
                    for stop in until:
                        text = text.split(stop)[0]
                    found[index] = text
                    self.cache_hook.add_partial("generate_until", requests[index].args, text)
        return found

    def _wishes(self, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str], int]:
        """(arguments of `generate`, which refuses what it does not know, stop strings, new tokens) of a request."""
        wishes = dict(normalize_gen_kwargs(dict(given), NEW_TOKENS))
        until = [stop for stop in wishes.pop("until", []) if stop]
        new_tokens = int(wishes.pop("max_gen_toks"))
        if not 0 < new_tokens < self.max_length:
            raise ValueError(
                f"max_gen_toks is {new_tokens}, and the model has {self.max_length} positions for context and answer; "
                "set generation_kwargs: {max_gen_toks: …} in the task"
            )
        if not wishes["do_sample"]:
            wishes.pop("temperature", None)
        if until:
            wishes |= {"stop_strings": until, "tokenizer": self.tokenizer}
        return wishes, until, new_tokens

    def _padded(self, rows: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
        """Rows of ids as one batch, padded on the left."""
        batch = self.tokenizer.pad({"input_ids": [list(row) for row in rows]}, padding_side="left", return_tensors="pt")
        return dict(batch.to(self.device))

    def _batches(self, rows: Sequence[Row], told: str, disable_tqdm: bool) -> Iterator[Sequence[Row]]:
        """`batch_size` at a time, the last ones first: those are the longest, and what fails for want of memory fails
        at once."""
        with tqdm(total=len(rows), desc=told, disable=disable_tqdm) as bar:
            for end in range(len(rows), 0, -self.batch_size):
                batch = rows[max(0, end - self.batch_size) : end]
                yield batch
                bar.update(len(batch))


def _tell_cut(cut: int, count: int, room: int) -> None:
    if cut:
        warnings.warn(
            f"{cut} of {count} contexts are longer than {room} tokens and lost their beginnings", stacklevel=3
        )
