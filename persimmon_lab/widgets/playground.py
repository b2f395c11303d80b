"""A playground for generation: write a prompt, watch the tokens come, and ask each what else it could have been."""

import threading
import time
from dataclasses import dataclass, field, replace
from typing import Any

import ipywidgets
from IPython.display import HTML

from persimmon_lab.generation.prompts import context_limit
from persimmon_lab.viz.tokens import Token, page_html, tokens_html
from persimmon_lab.widgets.generation import Settings, describe_prompt, encode_prompt, shortened, stream_tokens
from persimmon_lab.widgets.token_view import TokenView

SECONDS_BETWEEN_UPDATES = 0.05  # a reader sees no difference, and decoding keeps its speed
SECONDS_AFTER_TYPING = 0.3
LONGEST_RUN = 1000  # tokens; the slider's end


@dataclass(eq=False)
class Run:
    """One generation: what was asked for, and what came of it."""

    settings: Settings
    cancel: threading.Event = field(default_factory=threading.Event)
    tokens: list[Token] = field(default_factory=list)
    seconds: float = 0.0
    error: Exception | None = None

    @property
    def stopped(self) -> bool:
        return self.cancel.is_set()

    @property
    def repeatable_settings(self) -> Settings:
        """Settings that write the same text: one that was stopped asks for as many tokens as it had."""
        stopped = self.stopped and self.tokens
        return replace(self.settings, max_new_tokens=len(self.tokens)) if stopped else self.settings

    def summary(self) -> str:
        """How many tokens, how fast, and whether it was stopped."""
        parts = []
        if self.tokens:
            parts += [f"{len(self.tokens):,} tokens", f"{len(self.tokens) / self.seconds:,.0f} tokens/s"]
        if self.stopped:
            parts.append("stopped")
        return " · ".join(parts)


def make_controls(settings: Settings, vocab_size: int, longest: int) -> dict[str, ipywidgets.DOMWidget]:
    """One control for each of the settings, under its name; values out of range are moved into it."""
    look = {"style": {"description_width": "7em"}, "layout": {"width": "auto"}}
    controls = {
        "prompt": ipywidgets.Textarea(placeholder="A prompt", rows=3, layout={"width": "auto", "margin": "2px"}),
        "chat": ipywidgets.Checkbox(description="chat format", indent=False, layout={"width": "auto"}),
        "temperature": ipywidgets.FloatSlider(min=0, max=2, step=0.05, description="temperature", **look),
        "top_p": ipywidgets.FloatSlider(min=0.05, max=1, step=0.05, description="top-p", **look),
        "top_k": ipywidgets.BoundedIntText(min=0, max=vocab_size, description="top-k (0: off)", **look),
        "max_new_tokens": ipywidgets.IntSlider(min=1, max=longest, description="new tokens", **look),
        "seed": ipywidgets.BoundedIntText(min=0, max=2**31 - 1, description="seed", **look),
    }
    for name, control in controls.items():
        control.value = getattr(settings, name)
    return controls


class GenerationPlayground(ipywidgets.VBox):
    """Prompt and settings above, the text below, each token coloured by its probability; click one for what else it
    could have been.

    `settings` are the fields of `Settings`: chat, temperature, top_k, top_p, max_new_tokens, seed. `load` is the code
    that makes `model` and `tokenizer`; it heads the code that is shown. Generation runs in a thread, so that the
    notebook goes on and Stop is heard, and anew at every change with `as_you_type`; a new run ends the one before.

    `run` is the latest Run, with its tokens and the error that ended it, if one did; `text` its prompt and what came
    after; `code` the code that writes the same. Where no kernel runs, a notebook shows `static()` in place of the
    widget if there is something to show: let the cell end in `GenerationPlayground(...).generate().wait()`.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        prompt: str = "",
        *,
        as_you_type: bool = False,
        load: str | None = None,
        **settings: Any,
    ):
        self.model, self.tokenizer, self.load = model, tokenizer, load
        self.run: Run | None = None
        self._thread: threading.Thread | None = None
        self._turn = threading.Lock()  # held by the one run that asks the model and writes to the view
        longest = min(LONGEST_RUN, context_limit(model.config) - 1)
        self.controls = make_controls(Settings(prompt, **settings), tokenizer.vocab_size, longest)
        self.as_you_type = ipywidgets.Checkbox(
            as_you_type, description="generate as you type", indent=False, layout={"width": "auto"}
        )
        self.generate_button = ipywidgets.Button(description="Generate", icon="play", button_style="primary")
        self.stop_button = ipywidgets.Button(description="Stop", icon="stop", disabled=True)
        self.status = ipywidgets.Label()
        self.view = TokenView(tokenizer.vocab_size, on_open=self._opened)

        self.generate_button.on_click(lambda _: self.generate())
        self.stop_button.on_click(lambda _: self.stop())
        for control in [*self.controls.values(), self.as_you_type]:
            control.observe(self._changed, "value")
        row = {"flex_flow": "row wrap", "align_items": "center", "margin": "0 2px"}
        grid = {"grid_template_columns": "repeat(auto-fit, minmax(250px, 1fr))", "grid_gap": "0 16px"}
        numbers = ("temperature", "top_p", "top_k", "max_new_tokens", "seed")
        super().__init__(
            [
                self.controls["prompt"],
                ipywidgets.Box([self.controls["chat"], self.as_you_type], layout={**row, "grid_gap": "24px"}),
                ipywidgets.GridBox([self.controls[name] for name in numbers], layout=grid),
                ipywidgets.Box(
                    [self.generate_button, self.stop_button, self.status], layout={**row, "grid_gap": "8px"}
                ),
                self.view,
            ],
            layout={"max_width": "72em"},
        )
        self._show_prompt()

    @property
    def settings(self) -> Settings:
        """What the controls say now."""
        values = {name: control.value for name, control in self.controls.items()}
        # Sliders in the browser answer 0.9500000000000001 where they were told 0.95.
        rounded = {name: round(values[name], 2) for name in ("temperature", "top_p")}
        return Settings(**values | rounded)

    @property
    def text(self) -> str:
        if self.run is None:
            return ""
        return "".join(token.text for token in [*self._prompt_tokens(self.run.settings), *self.run.tokens])

    @property
    def code(self) -> str:
        return (self.settings if self.run is None else self.run.repeatable_settings).code(self.load)

    def generate(self, delay: float = 0.0) -> "GenerationPlayground":
        """Start a run with the present settings, after `delay` seconds in which another one may take its place."""
        before, self.run = self.run, Run(self.settings)
        if before is not None:
            before.cancel.set()
        self.stop_button.disabled = False
        self._thread = threading.Thread(target=self._work, args=(self.run, delay), daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Let the run end with the token that it is at."""
        if self.run is not None:
            self.run.cancel.set()

    def wait(self, seconds: float | None = None) -> "GenerationPlayground":
        """Wait until the latest run has ended."""
        if self._thread is not None:
            self._thread.join(seconds)
        return self

    def close(self) -> None:
        self.stop()
        super().close()

    def static(self, inspect: int | None = None) -> HTML:
        """The latest run (made now if there is none) as a page, with the details of the token at `inspect`.

        Raises what generating raised.
        """
        run = self.run
        if run is None:
            run = Run(self.settings)
            run.tokens.extend(stream_tokens(self.model, self.tokenizer, run.settings, run.cancel))
        if run.error is not None:
            raise run.error
        prompt = shortened(self._prompt_tokens(run.settings))
        return HTML(page_html(prompt, run.tokens, self.tokenizer.vocab_size, inspect))

    def __repr__(self) -> str:
        return f"GenerationPlayground({self.settings.prompt!r})"

    def _repr_mimebundle_(self, **options: Any) -> dict[str, str]:
        bundle = super()._repr_mimebundle_(**options)
        shows = self.run is not None and self.run.error is None
        return {**bundle, "text/html": self.static().data} if shows else bundle

    def _prompt_tokens(self, settings: Settings) -> list[Token]:
        return describe_prompt(self.tokenizer, encode_prompt(self.tokenizer, settings))

    def _work(self, run: Run, delay: float) -> None:
        replaced_or_stopped = run.cancel.wait(delay)
        with self._turn:
            if not replaced_or_stopped:
                self._decode(run)
            self._publish(run)
            if run is self.run:
                self.view.code = self.code
                self.stop_button.disabled = True

    def _decode(self, run: Run) -> None:
        started = published = time.perf_counter()
        try:
            for token in stream_tokens(self.model, self.tokenizer, run.settings, run.cancel):
                run.tokens.append(token)
                now = time.perf_counter()
                run.seconds = max(now - started, 1e-9)  # a coarse clock may not have moved
                if now - published >= SECONDS_BETWEEN_UPDATES:
                    self._publish(run)
                    published = now
        except Exception as error:  # whatever it is, the person at the widget is to see it
            run.error = error

    def _publish(self, run: Run) -> None:
        if run is not self.run:
            return
        self.view.error = "" if run.error is None else f"{type(run.error).__name__}: {run.error}"
        self.view.show(run.tokens)
        self.view.stale = run.settings != self.settings  # last: until then the old tokens are on the page
        self.status.value = run.summary()

    def _changed(self, change: Any) -> None:
        self._show_prompt()
        if self.as_you_type.value:
            self.generate(delay=SECONDS_AFTER_TYPING)

    def _show_prompt(self) -> None:
        self.view.stale = self.run is not None and self.run.settings != self.settings
        self.view.code = self.code
        try:
            self.view.prompt = tokens_html(shortened(self._prompt_tokens(self.settings)))
            self.view.error = ""
        except ValueError as error:
            self.view.error = str(error)

    def _opened(self) -> None:
        if self.as_you_type.value and self.run is None:
            self.generate()
