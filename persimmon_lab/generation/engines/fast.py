"""The fast path of generation: weights laid out for speed, room reserved once, and a step with nothing else in it.

`runner_for(model, engine)` gives something that is called as the model is, so that one decoding loop serves both.
Inside it, `FastRunner.logits` is the whole of Persimmon in one function; prefill, decoding and the step of fixed shapes
that a CUDA graph replays differ only in how they attend.
"""

import contextlib
import itertools
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from persimmon_lab.attention import causal_mask
from persimmon_lab.cache import Cache, cache_for
from persimmon_lab.config import PersimmonConfig
from persimmon_lab.generation.engines.packed import LayOut, PlainLinear
from persimmon_lab.generation.engines.reserved_cache import ReservedCache
from persimmon_lab.inputs import check_range
from persimmon_lab.mlp import squared_relu
from persimmon_lab.outputs import CausalLMOutputWithPast
from persimmon_lab.quantisation.modules import QuantisedEmbedding
from persimmon_lab.rotary import has_own_theta, rotary_tables

Hidden = Float[Tensor, "batch position hidden"]
OneQuery = Float[Tensor, "batch head 1 channel"]
Keys = Float[Tensor, "batch head key channel"]
QueryKeyValue = Float[Tensor, "3 batch head position channel"]
Attend = Callable[[int, QueryKeyValue], Float[Tensor, "batch head position channel"]]  # the int is the layer

FLOAT32_NUMBERS = 2**20  # of keys, converted at a time: 4 MB, and the values as much again
SMALLEST_BUCKET = 128


@contextlib.contextmanager
def outside_inference_mode() -> Iterator[None]:
    """For tensors that outlive a call: what inference mode makes could not be written to outside of it."""
    with torch.inference_mode(False), torch.no_grad():
        yield


class FastLayer:
    """One decoder layer's parts, with its four products laid out for speed."""

    def __init__(self, layer: Any, lay_out: LayOut) -> None:
        attention = layer.self_attn
        mlp = layer.mlp
        self.input_norm = _norm_arguments(layer.input_layernorm)
        self.mlp_norm = _norm_arguments(layer.post_attention_layernorm)
        self.norms = None
        if attention.qk_layernorm:
            self.norms = _norm_arguments(attention.q_layernorm), _norm_arguments(attention.k_layernorm)
        squared = mlp.act is squared_relu
        self.query_key_value = lay_out(attention.query_key_value)
        self.dense = lay_out(attention.dense)
        self.up = lay_out(mlp.dense_h_to_4h, relu=squared)
        self.down = lay_out(mlp.dense_4h_to_h)
        # The relu of squared ReLU rides along with the product before it, which leaves the square.
        self.act: Callable[[Tensor], Tensor] = torch.square_ if squared else mlp.act


def _norm_arguments(norm: nn.LayerNorm) -> tuple[Any, ...]:
    """What torch.layer_norm takes after its input."""
    return norm.normalized_shape, norm.weight, norm.bias, norm.eps


class FastRunner:
    """A causal language model as one function over laid-out products; called as the model is.

    `lay_out` turns an `nn.Linear` into its product (see `packed`). Norms, biases and embeddings are the model's own
    tensors; the laid-out weights are copies, so a runner serves the weights that it was made from.

    Several threads may call it at once, each with a cache of its own: a step of fixed shapes belongs to a cache's room.
    """

    def __init__(self, model: Any, lay_out: LayOut = PlainLinear, compiled: bool = False) -> None:
        self.config: PersimmonConfig = model.config
        embedding = model.model.embed_tokens
        # A plain table by torch's own operation, which asks less than the module does.
        self.embed: Callable[[Tensor], Tensor] = partial(torch.embedding, embedding.weight)
        if isinstance(embedding, QuantisedEmbedding):
            self.embed = embedding
        self.layers = [FastLayer(layer, lay_out) for layer in model.model.layers]
        self.final_norm = _norm_arguments(model.model.final_layernorm)
        self.lm_head = lay_out(model.lm_head)
        self.scale: Tensor = model.model.final_layernorm.weight  # of the model's dtype, where the model is
        self.captures = can_capture(self.scale.device)
        self.static = compiled or self.captures  # decode by steps of fixed shapes
        self.compiled = compiled
        self._tables: tuple[Tensor, Tensor] | None = None
        self._step: StaticStep | None = None  # the one that ran last
        self._steps: weakref.WeakKeyDictionary[ReservedCache, dict[int, StaticStep]] = weakref.WeakKeyDictionary()
        self._idle: list[tuple[Tensor, dict[int, StaticStep]]] = []  # at most one room, and the steps that write to it

    @torch.no_grad()
    def __call__(
        self,
        input_ids: Int[Tensor, "batch position"] | None = None,
        attention_mask: Int[Tensor, "batch key"] | Bool[Tensor, "batch key"] | None = None,
        position_ids: Int[Tensor, "batch position"] | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Hidden | None = None,
        use_cache: bool = True,
        logits_to_keep: int = 1,
    ) -> CausalLMOutputWithPast:
        """Logits of the last `logits_to_keep` positions (0: all), in the model's dtype; the cache is extended."""
        cache = None if past_key_values is None else cache_for(past_key_values, len(self.layers), extend=use_cache)
        past = 0 if cache is None else cache.get_seq_length()
        if inputs_embeds is None:
            assert input_ids is not None
            if input_ids.shape[1] > 1 or not past:  # single ones behind others are those that decoding chose
                check_range(input_ids, self.config.vocab_size, "token id")
            inputs_embeds = self.embed(input_ids)
        new = inputs_embeds.shape[1]
        if self.static and new == 1 and isinstance(cache, ReservedCache) and cache.has_room(1):
            self._step = step = self.step_for(cache, past + 1)
            logits = step(cache, inputs_embeds, attention_mask, position_ids)
            return CausalLMOutputWithPast(logits=logits, past_key_values=past_key_values)

        mask = None
        if (attention_mask is not None and not bool(attention_mask.all())) or (past and new > 1):
            mask = causal_mask(attention_mask, new, past + new, inputs_embeds.dtype, inputs_embeds.device)
        is_causal = mask is None and new > 1

        places = None
        if isinstance(cache, ReservedCache):
            heads = self.config.num_attention_heads
            reserved = cache
            places = reserved.extend(inputs_embeds.view(len(inputs_embeds), new, heads, -1).transpose(1, 2))

        def attend(index: int, query_key_value: QueryKeyValue) -> Tensor:
            query, key_and_value = query_key_value[0], query_key_value[1:]
            if places is not None:
                places[index].copy_(key_and_value)
                key, value = reserved[index]
            elif cache is not None:
                key, value = key_and_value.clone()  # the cache may keep them, without the query
                key, value = cache.update(key, value, index)
            else:
                key, value = key_and_value
            if new == 1 and key.dtype == torch.bfloat16 and key.device.type == "cpu":
                return attend_in_float32(query, key, value, mask)
            return F.scaled_dot_product_attention(query, key, value, mask, is_causal=is_causal)

        cos, signed_sin = self.rotation(past, past + new, position_ids)
        logits = self.logits(inputs_embeds, cos, signed_sin, attend, logits_to_keep)
        return CausalLMOutputWithPast(logits=logits, past_key_values=past_key_values if use_cache else None)

    def step_for(self, cache: ReservedCache, end: int) -> "StaticStep":
        """The step of fixed shapes that writes into the cache's room and sees `end` positions; made where missing."""
        room = cache.reserved
        assert room is not None
        steps = self._steps.setdefault(cache, {})
        bucket = min(bucket_of(end), room.shape[4])
        if bucket not in steps or steps[bucket].reserved is not room:
            with outside_inference_mode():
                steps[bucket] = StaticStep(self, room, bucket)
        return steps[bucket]

    def new_cache(self, room: int, rows: int = 1) -> ReservedCache:
        """An empty cache with room for `room` positions, or the next bucket of them where steps have fixed shapes.

        Where `take_back` left a room that is large enough for that many rows, it is used again, with its steps.
        """
        cache = ReservedCache(len(self.layers), bucket_of(room) if self.static else room)
        try:
            reserved, steps = self._idle.pop()
        except IndexError:
            return cache
        if reserved.shape[2] == rows and reserved.shape[4] >= cache.room:
            cache.reuse(reserved)
            self._steps[cache] = steps
        return cache

    def take_back(self, cache: Any) -> None:
        """Keep the room of a cache, and the steps that were captured for it, for the next `new_cache`.

        For whoever made the cache, handed it to nobody and is done with it: the next text is written over it.
        """
        steps = self._steps.pop(cache, None) if isinstance(cache, ReservedCache) else None
        if steps:
            room = cache.reserved
            self._idle[:] = [(room, {bucket: step for bucket, step in steps.items() if step.reserved is room})]

    def forget_room(self) -> bool:
        """Free the room that `take_back` keeps; whether there was one."""
        had_one = bool(self._idle)
        self._idle.clear()
        return had_one

    def logits(
        self, x: Hidden, cos: Tensor, signed_sin: Tensor, attend: Attend, keep: int
    ) -> Float[Tensor, "batch kept vocab"]:
        """The model: embeddings in, logits of the last `keep` positions out; attention over the past is `attend`'s."""
        batch, new, hidden = x.shape
        head = self.config.num_attention_heads
        x = x.flatten(0, 1)  # products take rows
        totals = []
        for index, layer in enumerate(self.layers):
            fused = layer.query_key_value(torch.layer_norm(x, *layer.input_norm))
            query, key, value = fused.view(batch, new, head, 3, -1).transpose(1, 2).unbind(3)
            if layer.norms is not None:
                query, key = torch.layer_norm(query, *layer.norms[0]), torch.layer_norm(key, *layer.norms[1])
            query_key_value = torch.stack((query, key, value))  # one copy, so that one operation does for all of them
            rotate_(query_key_value[:2], cos, signed_sin)
            if x.device.type == "cpu":
                totals.append(query_key_value.sum(dtype=torch.float32))
            mixed = attend(index, query_key_value)
            x = x + layer.dense(mixed.transpose(1, 2).reshape(batch * new, hidden))
            x = x + layer.down(layer.act(layer.up(torch.layer_norm(x, *layer.mlp_norm))))
        kept = x.view(batch, new, hidden)[:, -keep:].flatten(0, 1)
        logits = self.lm_head(torch.layer_norm(kept, *self.final_norm)).view(batch, -1, self.config.vocab_size)
        if totals:  # the kernel of some processors makes zeros of a NaN: see `attention.fused_attention`
            logits = logits.masked_fill(~torch.stack(totals).sum().isfinite(), torch.nan)
        return logits

    def rotation(self, start: int, end: int, position_ids: Tensor | None) -> tuple[Tensor, Tensor]:
        """Cosine and signed sine for `rotate_`, from tables that are made once."""
        config, dtype, device = self.config, self.scale.dtype, self.scale.device
        if has_own_theta(config, end):
            positions = torch.arange(start, end, device=device)[None] if position_ids is None else position_ids
            cos, signed_sin = _signed(*rotary_tables(positions, config, end, dtype))
            return cos.unsqueeze(1), signed_sin.unsqueeze(1)
        tables = self._tables  # another thread may put a shorter one there
        if tables is None or tables[0].shape[1] < end:
            with outside_inference_mode():
                positions = torch.arange(bucket_of(end), device=device)[None]
                tables = _signed(*rotary_tables(positions, config, config.max_position_embeddings, dtype))
            self._tables = tables
        cos, signed_sin = tables
        if position_ids is None:
            return cos[:, start:end], signed_sin[:, start:end]
        return cos[0, position_ids].unsqueeze(1), signed_sin[0, position_ids].unsqueeze(1)


def _signed(cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Tables (batch, position, rotary) as `rotate_` takes them: the sine of the first half negated."""
    half = sin.shape[-1] // 2
    return cos, torch.cat((-sin[..., :half], sin[..., half:]), dim=-1)


def rotate_(x: Float[Tensor, "*leading position channel"], cos: Tensor, signed_sin: Tensor) -> None:
    """`apply_rotary` in place, in four operations: swapped halves times a sine that carries the sign."""
    width = cos.shape[-1]
    turned = x[..., :width]
    swapped = torch.cat((turned[..., width // 2 :], turned[..., : width // 2]), dim=-1)
    turned.mul_(cos).addcmul_(swapped, signed_sin)


def attend_in_float32(
    query: OneQuery, key: Keys, value: Keys, mask: Float[Tensor, "#batch 1 1 key"] | None
) -> OneQuery:
    """Attention of one query per row to a bfloat16 cache, row by row in float32.

    torch's fused kernel for bfloat16 on a CPU is slow at a single query, and rounds its weights. A few
    rows at a time, so that their float32 copies stay in the cache of the processor.
    """
    rows = max(1, FLOAT32_NUMBERS // key[0].numel())
    if len(query) > rows:
        masks = itertools.repeat(None) if mask is None else mask.expand(len(query), -1, -1, -1).split(rows)
        parts = zip(query.split(rows), key.split(rows), value.split(rows), masks, strict=False)
        return torch.cat([attend_in_float32(*part) for part in parts])
    mask = None if mask is None else mask.float()
    return F.scaled_dot_product_attention(query.float(), key.float(), value.float(), mask).to(query.dtype)


def bucket_of(positions: int) -> int:
    """The power of two that holds `positions`, at least SMALLEST_BUCKET: lengths that share a step of fixed shapes."""
    return max(SMALLEST_BUCKET, 1 << (positions - 1).bit_length())


def can_capture(device: torch.device) -> bool:
    """Whether steps of fixed shapes are recorded there, to be replayed."""
    return device.type == "cuda"


class StaticStep:
    """One decode step in which no shape and no address changes: what a CUDA graph can replay, or a compiler fix.

    It writes into `reserved` at a place that a tensor names, looks at the whole `bucket` (the power of two of positions
    that holds the text) and masks what is not there yet. On a GPU it is captured when it is made; on a CPU it runs as
    it is. It serves any cache that has this room, one after the other.
    """

    def __init__(self, runner: FastRunner, reserved: Tensor, bucket: int) -> None:
        self.runner = runner
        self.reserved = reserved
        self.bucket = bucket
        batch = self.reserved.shape[2]
        self.rooms = self.reserved.unbind()
        device = runner.scale.device
        self.embeds = runner.scale.new_zeros(batch, 1, len(runner.scale))
        self.place = torch.zeros(1, dtype=torch.int64, device=device)
        self.cos, self.signed_sin = (
            torch.zeros_like(t).expand(batch, 1, -1, -1).clone() for t in runner.rotation(0, 1, None)
        )
        self.visible = torch.zeros(batch, 1, 1, self.bucket, dtype=torch.bool, device=device)
        self.compute = torch.compile(self.logits, dynamic=False) if runner.compiled else self.logits
        self.graph = self.capture() if runner.captures else None

    def logits(self) -> Tensor:
        def attend(index: int, query_key_value: QueryKeyValue) -> Tensor:
            self.rooms[index].index_copy_(3, self.place, query_key_value[1:])
            keys, values = self.rooms[index][:, :, :, : self.bucket]
            return F.scaled_dot_product_attention(query_key_value[0], keys, values, self.visible)

        return self.runner.logits(self.embeds, self.cos, self.signed_sin, attend, 1)

    def capture(self) -> torch.cuda.CUDAGraph:
        """Record the step's kernels. The runs before let libraries allocate; they write where the real step will."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.compute()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.output = self.compute()
        return graph

    def __call__(
        self, cache: ReservedCache, embeds: Hidden, mask: Tensor | None, position_ids: Tensor | None
    ) -> Tensor:
        past = cache.get_seq_length()
        self.embeds.copy_(embeds)
        self.place.fill_(past)
        for buffer, value in zip(
            (self.cos, self.signed_sin), self.runner.rotation(past, past + 1, position_ids), strict=True
        ):
            buffer.copy_(value)
        self.visible[..., past + 1 :] = False
        self.visible[..., : past + 1] = True if mask is None else mask[:, None, None, :] != 0
        if self.graph is None:
            self.output = self.compute()
        else:
            self.graph.replay()
        cache.advance(1)
        return self.output.clone()  # the next replay writes over it
