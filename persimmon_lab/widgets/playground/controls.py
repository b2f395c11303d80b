"""The playground's controls: one for each of the settings."""

from collections.abc import Mapping

import ipywidgets

from persimmon_lab.widgets.playground.settings import Settings

NUMBERS = ("temperature", "top_p", "top_k", "min_p", "max_new_tokens", "seed")
SLIDERS = ("temperature", "top_p", "min_p")  # they answer 0.9500000000000001 where they were told 0.95


def make_controls(settings: Settings, vocab_size: int, longest: int) -> dict[str, ipywidgets.DOMWidget]:
    """One control for each of the settings, under its name. ValueError for a value that its control cannot show."""
    look = {"style": {"description_width": "7em"}, "layout": {"width": "auto"}}
    controls = {
        "prompt": ipywidgets.Textarea(placeholder="A prompt", rows=3, layout={"width": "auto", "margin": "2px"}),
        "chat": ipywidgets.Checkbox(description="chat format", indent=False, layout={"width": "auto"}),
        "temperature": ipywidgets.FloatSlider(min=0, max=2, step=0.05, description="temperature", **look),
        "top_p": ipywidgets.FloatSlider(min=0.05, max=1, step=0.05, description="top-p", **look),
        "top_k": ipywidgets.BoundedIntText(min=0, max=vocab_size, description="top-k (0: off)", **look),
        "min_p": ipywidgets.FloatSlider(min=0, max=1, step=0.01, description="min-p", **look),
        "max_new_tokens": ipywidgets.IntSlider(min=1, max=longest, description="new tokens", **look),
        "seed": ipywidgets.BoundedIntText(min=0, max=2**31 - 1, description="seed", **look),
    }
    write(controls, settings)
    for name in NUMBERS:
        control, value = controls[name], getattr(settings, name)
        is_usual = name == "max_new_tokens" and value == Settings(settings.prompt).max_new_tokens
        if control.value != value and not is_usual:  # which may be more than a small model can read
            raise ValueError(f"{name} is {value!r}; the playground takes {control.min:g} to {control.max:g}")
    return controls


def write(controls: Mapping[str, ipywidgets.DOMWidget], settings: Settings) -> None:
    """Let the controls say these settings."""
    for name, control in controls.items():
        control.value = getattr(settings, name)


def read(controls: Mapping[str, ipywidgets.DOMWidget]) -> Settings:
    """What the controls say."""
    values = {name: control.value for name, control in controls.items()}
    return Settings(**values | {name: round(values[name], 2) for name in SLIDERS})
