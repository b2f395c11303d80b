"""What the controls of the playground say, and the code that does the same."""

from dataclasses import dataclass
from typing import Any

from persimmon_lab.tokenizer.chat import NEXT_TURN

MODEL_AND_TOKENIZER = "# model and tokenizer are those that the playground was made with"


@dataclass(frozen=True)
class Settings:
    """What the controls say. Temperature 0 is greedy decoding; top_k 0, top_p 1 and min_p 0 cut nothing."""

    prompt: str
    chat: bool = False
    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 0.95
    min_p: float = 0.0
    max_new_tokens: int = 100
    seed: int = 0

    def generate_arguments(self) -> dict[str, Any]:
        """For `model.generate`. What has a control is said outright, whatever the model's generation_config says."""
        length = {"max_new_tokens": self.max_new_tokens}
        stop = {"stop_strings": [NEXT_TURN]} if self.chat else {}
        if self.temperature == 0:
            return {**length, "do_sample": False, **stop}
        filters = {"temperature": self.temperature, "top_k": self.top_k, "top_p": self.top_p, "min_p": self.min_p}
        return {**length, "do_sample": True, **filters, "seed": self.seed, **stop}

    def says(self) -> str:
        """How the next token is chosen, in a few words; what cuts nothing is not said."""
        if self.temperature == 0:
            return "greedy"
        filters = [
            f"top-k {self.top_k}" if self.top_k else "",
            f"top-p {self.top_p:g}" if self.top_p < 1 else "",
            f"min-p {self.min_p:g}" if self.min_p > 0 else "",
        ]
        return " · ".join([f"temperature {self.temperature:g}", *filter(None, filters), f"seed {self.seed}"])

    def prompt_code(self) -> str:
        """A Python expression for the prompt's ids."""
        if self.chat:
            return f'tokenizer.apply_chat_template({self.prompt!r}, return_tensors="pt")'
        return f'tokenizer({self.prompt!r}, return_tensors="pt").input_ids'

    def generate_code(self, input_ids: str) -> str:
        """A call of `model.generate` that continues the ids under that name."""
        arguments = {"tokenizer": "tokenizer"}
        arguments |= {name: repr(value) for name, value in self.generate_arguments().items()}
        lines = [f"    {input_ids},", *(f"    {name}={value}," for name, value in arguments.items())]
        return "\n".join(["model.generate(", *lines, ")"])

    def code(self, load: str | None = None) -> str:
        """Python that prints the same text; `load` is the line that makes `model` and `tokenizer`."""
        return "\n".join(
            [
                load or MODEL_AND_TOKENIZER,
                f"input_ids = {self.prompt_code()}",
                f"output = {self.generate_code('input_ids')}",
                "print(tokenizer.decode(output[0], skip_special_tokens=True))",
            ]
        )
