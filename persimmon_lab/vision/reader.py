"""Persimmon that reads pictures: one linear layer beside the embedding, and nothing else."""

from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from persimmon_lab.cache import Cache, LegacyCache
from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.generation.steps import GenerateOutput
from persimmon_lab.inputs import check_range
from persimmon_lab.model import Hidden, Padding, Tokens
from persimmon_lab.outputs import CausalLMOutputWithPast
from persimmon_lab.vision.layout import Layout, Prompts
from persimmon_lab.vision.patches import Patches


class PersimmonWithPictures(nn.Module):
    """A Persimmon and `vision_embed_tokens`, a linear layer from a patch's numbers to a position of its stream.

    The language model is the caller's own object and is not changed: what is trained is up to `requires_grad`. Source:
    Fuyu (Bavishi et al. 2023, https://www.adept.ai/blog/fuyu-8b), by whose names the parameters are stored.

    The projection's weights are drawn from `generator` (or torch's global one) as the language model's are, its bias
    is 0.
    """

    def __init__(
        self, language_model: PersimmonForCausalLM, layout: Layout, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        vocabulary = language_model.config.vocab_size
        for name, value in (("place_id", layout.place_id), ("row_end_id", layout.row_end_id)):
            if value is not None and not 0 <= value < vocabulary:
                raise ValueError(
                    f"{name} is {value}, and the model's ids are 0 … {vocabulary - 1}; choose one of them that no text "
                    "needs (fitting.vocabulary_rows.never_produced lists them)"
                )
        self.layout = layout
        self.language_model = language_model
        self.vision_embed_tokens = nn.Linear(
            layout.features, language_model.config.hidden_size, device=language_model.device, dtype=language_model.dtype
        )
        language_model.initialize_weights(generator, only=self.vision_embed_tokens)

    def embed(self, input_ids: Tokens, patches: Patches) -> Hidden:
        """The embeddings of the ids, and in each place the projection of its patch: the first place has the first.

        Patches are taken in the projection's dtype and device. Raises ValueError where there are more or fewer patches
        than places, or patches of another size, and IndexError for ids that are none.
        """
        check_range(input_ids, self.language_model.config.vocab_size, "token id")
        if patches.shape[1] != self.layout.features:
            raise ValueError(
                f"patches have {patches.shape[1]} numbers; this model reads {self.layout.features}, "
                f"{self.layout.patch_size} x {self.layout.patch_size} pixels of {self.layout.channels} channels"
            )
        is_place = input_ids == self.layout.place_id
        places = int(is_place.sum())
        if places != len(patches):
            fewer = "more patches than places" if len(patches) > places else "fewer patches than places"
            raise ValueError(
                f"{fewer}: {len(patches)} patches, and {places} places (id {self.layout.place_id}) in input_ids; every "
                "patch of a picture has one place, and vision.layout.lay_out makes both"
            )
        embeds: Tensor = self.language_model.get_input_embeddings()(input_ids)
        projection = self.vision_embed_tokens.weight
        projected = self.vision_embed_tokens(patches.to(projection.device, projection.dtype))
        return embeds.masked_scatter(is_place[..., None], projected.to(embeds.dtype))

    def forward(
        self,
        input_ids: Tokens,
        patches: Patches | None = None,
        attention_mask: Padding | None = None,
        position_ids: Int[Tensor, "#batch position"] | None = None,
        past_key_values: Cache | LegacyCache | None = None,
        labels: Tokens | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        logits_to_keep: int = 0,
    ) -> CausalLMOutputWithPast:
        """As `PersimmonForCausalLM.forward`, of ids with places and the patches that stand there; None: no pictures.

        A patch has no label: -100 in its place, or the model would be taught to say the place's id.
        """
        output = self.language_model(
            inputs_embeds=self.embed(input_ids, self._no_patches() if patches is None else patches),
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            labels=labels,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            logits_to_keep=logits_to_keep,
        )
        assert isinstance(output, CausalLMOutputWithPast)
        return output

    def read(self, prompts: Prompts, **arguments: Any) -> CausalLMOutputWithPast:
        """`forward` of prompts that were laid out: ids, patches, mask and positions."""
        device = self.device
        output: CausalLMOutputWithPast = self(
            prompts.input_ids.to(device),
            prompts.patches,
            prompts.attention_mask.to(device),
            prompts.position_ids.to(device),
            **arguments,
        )
        return output

    @torch.no_grad()
    def generate(self, prompts: Prompts, **settings: Any) -> Int[Tensor, "batch new"] | GenerateOutput:
        """The tokens that follow each prompt, without the prompt; `settings` and errors as `model.generate`.

        What a setting counts of the ids so far (repetition_penalty, no_repeat_ngram_size) it counts of the new ones.
        """
        ids = prompts.input_ids.to(self.device)
        return self.language_model.generate(
            inputs_embeds=self.embed(ids, prompts.patches),
            attention_mask=prompts.attention_mask.to(self.device),
            **settings,
        )

    @property
    def device(self) -> torch.device:
        return self.language_model.device

    def freeze_language(self) -> Self:
        """Let the projection alone learn."""
        self.language_model.requires_grad_(False)
        return self

    def _no_patches(self) -> Float[Tensor, "0 feature"]:
        weight = self.vision_embed_tokens.weight
        return torch.empty(0, self.layout.features, dtype=weight.dtype, device=weight.device)
