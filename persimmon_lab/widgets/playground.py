"""A playground for generation: write a prompt, watch the tokens come, and ask each what else it could have been."""

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import ipywidgets
from IPython.display import HTML
from torch import Tensor

from persimmon_lab.generation import decode_steps
from persimmon_lab.generation.prompts import context_limit
from persimmon_lab.tokenizer import StreamingDecoder
from persimmon_lab.viz.tokens import Token, page_html, tokens_html
from persimmon_lab.widgets.token_view import TokenView

SECONDS_BETWEEN_UPDATES = 0.05  # a reader sees no difference, and decoding keeps its speed
SECONDS_AFTER_TYPING = 0.3
LONGEST_PROMPT_SHOWN = 600  # tokens; of a longer prompt the middle is left out
NEXT_TURN = "\n\nhuman:"


@dataclass(frozen=True)
class Settings:
    """What the controls say. Temperature 0 is greedy decoding; top_k 0 and top_p 1 cut nothing."""

    prompt: str
    chat: bool = False
    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 0.95
    max_new_tokens: int = 100
    seed: int = 0

    def generate_arguments(self) -> dict[str, Any]:
        """For `model.generate`; everything is said, so that a model's own defaults do not come in."""
        length = {"max_new_tokens": self.max_new_tokens}
        stop = {"stop_strings": [NEXT_TURN]} if self.chat else {}
        if self.temperature == 0:
            return {**length, "do_sample": False, **stop}
        choice = {"temperature": self.temperature, "top_k": self.top_k, "top_p": self.top_p, "seed": self.seed}
        return {**length, "do_sample": True, **choice, **stop}

    def code(self, load: str | None = None) -> str:
        """Python that prints the same text; `load` is the line that makes `model` and `tokenizer`."""
        arguments = [f"{name}={value!r}" for name, value in self.generate_arguments().items()]
        if self.chat:
            ids = f'tokenizer.apply_chat_template({self.prompt!r}, return_tensors="pt")'
            arguments.append("tokenizer=tokenizer")
        else:
            ids = f'tokenizer({self.prompt!r}, return_tensors="pt").input_ids'
        return (
            f"{load or '# model and tokenizer are those that the playground was made with'}\n"
            f"input_ids = {ids}\n"
            f"output = model.generate(input_ids, {', '.join(arguments)})\n"
            "print(tokenizer.decode(output[0], skip_special_tokens=True))\n"
        )


def encode_prompt(tokenizer: Any, settings: Settings) -> Tensor:
    """The prompt's ids (1, position), in the chat format if the settings say so."""
    if settings.chat:
        return tokenizer.apply_chat_template(settings.prompt, return_tensors="pt")
    return tokenizer(settings.prompt, return_tensors="pt").input_ids


def describe_prompt(tokenizer: Any, prompt_ids: Tensor) -> list[Token]:
    """The prompt as the model reads it, special tokens included."""
    decoder, ids = StreamingDecoder(tokenizer, skip_special_tokens=True), prompt_ids[0].tolist()
    return [Token(decoder.push(index), piece) for index, piece in zip(ids, tokenizer.convert_ids_to_tokens(ids))]


def stream_tokens(model: Any, tokenizer: Any, settings: Settings, cancel: threading.Event) -> Iterator[Token]:
    """Generate: one Token per step, until the text ends or `cancel` is set.

    Each carries the text that it completed, a stop string included: the model wrote that too. (`generation.stream`
    holds it back, which moves text from one token to another.) Probabilities are the model's own, before temperature
    and filters. Raises what `generate` raises.
    """
    prompt_ids = encode_prompt(tokenizer, settings)
    decoder = StreamingDecoder(tokenizer, skip_special_tokens=True)
    for index in prompt_ids[0].tolist():
        decoder.push(index)
    for step in decode_steps(model, prompt_ids, tokenizer=tokenizer, **settings.generate_arguments()):
        choice, is_last = step.choice(), step.is_last or cancel.is_set()
        yield Token(
            decoder.push(choice.token_id) + (decoder.finish() if is_last else ""),
            tokenizer.convert_ids_to_tokens(choice.token_id),
            choice.probability,
            choice.rank,
            choice.entropy_bits,
            tuple((tokenizer.convert_ids_to_tokens(index), probability) for index, probability in choice.alternatives),
        )
        if is_last:
            return


def shortened(tokens: Sequence[Token]) -> list[Token]:
    """At most LONGEST_PROMPT_SHOWN of them: the beginning and the end."""
    left_out = len(tokens) - LONGEST_PROMPT_SHOWN
    if left_out <= 0:
        return list(tokens)
    half = LONGEST_PROMPT_SHOWN // 2
    return [*tokens[:half], Token("", f" … {left_out:,} tokens … "), *tokens[-half:]]


@dataclass(eq=False)
class Run:
    """One generation: what was asked for, and what came of it."""

    settings: Settings
    cancel: threading.Event = field(default_factory=threading.Event)
    tokens: list[Token] = field(default_factory=list)
    seconds: float = 0.0
    error: Exception | None = None
    thread: threading.Thread | None = None

    @property
    def reproducing_settings(self) -> Settings:
        """One that was stopped is repeated by asking for as many tokens as it had."""
        stopped = self.cancel.is_set() and self.tokens
        return replace(self.settings, max_new_tokens=len(self.tokens)) if stopped else self.settings


class GenerationPlayground(ipywidgets.VBox):
    """Prompt and settings above, the text below, each token coloured by its probability; click one for what else it
    could have been.

    Generates in a thread, so that the notebook goes on and Stop is heard; with `as_you_type` at every change. A new run
    ends the one before. `load` is the line of code that makes `model` and `tokenizer`, for the code that it exports.

    `run` is the latest Run, `text` and `code` are its text (prompt included) and the code that writes it; `wait()`
    waits for its end. `static()` is the same as a page for notebooks without a kernel.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        prompt: str = "",
        *,
        chat: bool = False,
        temperature: float = 0.8,
        top_k: int = 0,
        top_p: float = 0.95,
        max_new_tokens: int = 100,
        seed: int = 0,
        as_you_type: bool = False,
        load: str | None = None,
    ):
        self.model, self.tokenizer, self.load = model, tokenizer, load
        self.run: Run | None = None
        self._turn = threading.Lock()  # one run at a time asks the model
        controls = {
            "prompt": ipywidgets.Textarea(prompt, placeholder="Write something", rows=3, layout={"width": "auto"}),
            "chat": ipywidgets.Checkbox(chat, description="chat format", indent=False),
            "temperature": slider(ipywidgets.FloatSlider, temperature, 0, 2, 0.05, "temperature"),
            "top_k": ipywidgets.BoundedIntText(top_k, 0, tokenizer.vocab_size, description="top-k"),
            "top_p": slider(ipywidgets.FloatSlider, top_p, 0.05, 1, 0.05, "top-p"),
            "max_new_tokens": slider(
                ipywidgets.IntSlider, max_new_tokens, 1, min(1000, context_limit(model.config) - 1), 1, "new tokens"
            ),
            "seed": ipywidgets.BoundedIntText(seed, 0, 2**31 - 1, description="seed"),
        }
        self.controls = controls
        self.as_you_type = ipywidgets.Checkbox(as_you_type, description="generate as you type", indent=False)
        self.generate_button = ipywidgets.Button(description="Generate", icon="play", button_style="primary")
        self.stop_button = ipywidgets.Button(description="Stop", icon="stop", disabled=True)
        self.status = ipywidgets.HTML()
        self.view = TokenView(tokenizer.vocab_size, self._opened)

        self.generate_button.on_click(lambda _: self.generate())
        self.stop_button.on_click(lambda _: self.stop())
        for control in controls.values():
            control.observe(self._changed, "value")
        self.as_you_type.observe(self._changed, "value")
        row = ipywidgets.Layout(flex_flow="row wrap", grid_gap="0 12px", align_items="center")
        super().__init__(
            [
                controls["prompt"],
                ipywidgets.Box([controls["chat"], self.as_you_type], layout=row),
                ipywidgets.Box([controls[name] for name in ("temperature", "top_p", "top_k")], layout=row),
                ipywidgets.Box([controls[name] for name in ("max_new_tokens", "seed")], layout=row),
                ipywidgets.Box([self.generate_button, self.stop_button, self.status], layout=row),
                self.view,
            ]
        )
        self._show_prompt()

    @property
    def settings(self) -> Settings:
        return Settings(**{name: control.value for name, control in self.controls.items()})

    @property
    def text(self) -> str:
        """The latest run's prompt and what was written after it."""
        if self.run is None:
            return ""
        prompt = describe_prompt(self.tokenizer, encode_prompt(self.tokenizer, self.run.settings))
        return "".join(token.text for token in [*prompt, *self.run.tokens])

    @property
    def code(self) -> str:
        """Python that prints `text`; before the first run, what the controls would write."""
        return (self.settings if self.run is None else self.run.reproducing_settings).code(self.load)

    def generate(self, delay: float = 0.0) -> None:
        """Start a run with the present settings after `delay` seconds, and stop the one before it."""
        self.stop()
        run = self.run = Run(self.settings)
        run.thread = threading.Thread(target=self._work, args=(run, delay), name="playground", daemon=True)
        self.stop_button.disabled = False
        run.thread.start()

    def stop(self) -> None:
        """Let the running generation end after its present token."""
        if self.run is not None:
            self.run.cancel.set()

    def wait(self, timeout: float | None = None) -> "GenerationPlayground":
        """Wait until the latest run has ended."""
        if self.run is not None:
            self.run.thread.join(timeout)
        return self

    def close(self) -> None:
        self.stop()
        super().close()

    def static(self, inspect: int | None = None) -> HTML:
        """The latest run (one that is made now if there is none) as a page; `inspect` is the token whose details show.

        Raises what generating raised.
        """
        run = self.run
        if run is None:
            run = Run(self.settings)
            run.tokens = list(stream_tokens(self.model, self.tokenizer, run.settings, run.cancel))
        elif run.error is not None:
            raise run.error
        prompt = describe_prompt(self.tokenizer, encode_prompt(self.tokenizer, run.settings))
        return HTML(page_html(shortened(prompt), run.tokens, self.tokenizer.vocab_size, inspect))

    def __repr__(self) -> str:
        return f"GenerationPlayground({self.settings.prompt!r})"

    def _work(self, run: Run, delay: float) -> None:
        if not run.cancel.wait(delay):
            with self._turn:
                self._decode(run)
        self._publish(run, done=True)

    def _decode(self, run: Run) -> None:
        started = published = time.perf_counter()
        try:
            for token in stream_tokens(self.model, self.tokenizer, run.settings, run.cancel):
                run.tokens.append(token)
                now = time.perf_counter()
                run.seconds = now - started
                if now - published >= SECONDS_BETWEEN_UPDATES:
                    self._publish(run)
                    published = now
        except Exception as error:
            # Shown to the person at the widget; a thread's traceback would end in the server's log.
            run.error = error

    def _publish(self, run: Run, done: bool = False) -> None:
        if run is not self.run:
            return
        self.view.stale = False
        self.view.error = "" if run.error is None else f"{type(run.error).__name__}: {run.error}"
        self.view.show(run.tokens)
        rate = f" · {len(run.tokens) / run.seconds:,.0f} tokens/s" if run.seconds else ""
        self.status.value = f"{len(run.tokens):,} tokens{rate}"
        if done:
            self.view.code = self.code
            self.stop_button.disabled = True

    def _changed(self, change: Any) -> None:
        self._show_prompt()
        if self.as_you_type.value:
            self.generate(delay=SECONDS_AFTER_TYPING)

    def _show_prompt(self) -> None:
        settings = self.settings
        self.view.stale = self.run is not None and self.run.settings != settings
        try:
            prompt = describe_prompt(self.tokenizer, encode_prompt(self.tokenizer, settings))
        except ValueError as error:
            self.view.error = str(error)
            return
        self.view.error = ""
        self.view.prompt = tokens_html(shortened(prompt))

    def _opened(self) -> None:
        if self.as_you_type.value and self.run is None:
            self.generate()


def slider(kind: type, value: float, low: float, high: float, step: float, name: str) -> ipywidgets.Widget:
    return kind(value, min=low, max=high, step=step, description=name)
