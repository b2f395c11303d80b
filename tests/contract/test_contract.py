"""The contract of transformers 4.37.2: every public name of its classes has a verdict, and every verdict is true.

The names are data (tests/contract/names-4.37.2.json, listed by tools/contract.py), so nothing here needs that version.
"""

import inspect
import json
import pkgutil
import re
import subprocess
import sys
import tempfile
import warnings
from functools import cache

import pytest
import torch
from torch import nn

from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.classification import PersimmonForSequenceClassification
from persimmon_lab.config import PersimmonConfig
from persimmon_lab.generation_config import GenerationConfig
from persimmon_lab.mini import MINI
from persimmon_lab.model import PersimmonModel
from persimmon_lab.tokenizer import PersimmonTokenizer
from tools.contract import ROOT, Name, Verdict, read_names, read_verdicts

NAMES = {(item.section, item.name): item for item in read_names()}
VERDICTS = read_verdicts()
MODELS = (PersimmonForCausalLM, PersimmonModel, PersimmonForSequenceClassification)
VALUES = {"torch_dtype": torch.float16, "id2label": {0: "no", 1: "yes"}}  # what people give besides the default
REFUSALS = (AttributeError, NotImplementedError, TypeError, ValueError)


@cache
def instances(section: str) -> tuple[object, ...]:
    """What a section is about: one of ours, or for `PreTrainedModel` one of each class of models."""
    if section in ("PersimmonConfig", "GenerationConfig"):
        return ({"PersimmonConfig": PersimmonConfig, "GenerationConfig": GenerationConfig}[section](),)
    if section == "LlamaTokenizerFast":
        return (PersimmonTokenizer.from_pretrained(MINI),)
    config = PersimmonConfig.tiny(pad_token_id=0)
    wanted = {"PreTrainedModel": MODELS, "GenerationMixin": MODELS[:1]}
    classes = wanted.get(section) or [model for model in MODELS if model.__name__ == section]
    return tuple(model(config, torch.Generator().manual_seed(0)) for model in classes)


def options(name: Name) -> list[str]:
    """What our function takes behind its `**`, where it has one."""
    tokenizer = inspect.signature(PersimmonTokenizer.__call__).parameters
    behind = {
        "generate": [*GenerationConfig.names()],
        "from_pretrained": [*inspect.signature(PersimmonConfig).parameters],
        "encode": [*tokenizer],
        "apply_chat_template": [*tokenizer],
        "batch_decode": [*inspect.signature(PersimmonTokenizer.decode).parameters],
    }
    if name.section == "LlamaTokenizerFast" and name.name == "from_pretrained":
        return [*inspect.signature(PersimmonTokenizer).parameters]
    return behind.get(name.name, [])


def complaints(name: Name, verdict: Verdict) -> list[str]:
    """Why a verdict is not true; empty where it is."""
    return [
        f"{type(instance).__name__}.{name.name}: {complaint}"
        for instance in instances(name.section)
        for complaint in (
            not_refused(name, verdict, instance) if verdict.refused else not_there(name, verdict, instance)
        )
    ]


def error_of(action, *arguments, **keywords) -> str | None:
    """The words of a refusal; None where nothing was refused."""
    try:
        action(*arguments, **keywords)
    except REFUSALS as error:
        return str(error)
    return None


def not_refused(name: Name, verdict: Verdict, instance: object) -> list[str]:
    said = [error_of(getattr, instance, name.name)]
    if name.section.endswith("Config") and name.kind == "attribute":
        said.append(error_of(type(instance), **{name.name: 1}))
    return [
        "is not refused" if words is None else f"the error is {words!r}, which does not say {verdict.refused!r}"
        for words in said if words is None or verdict.refused not in words.replace(name.name, "", 1)
    ]  # fmt: skip


def not_there(name: Name, verdict: Verdict, instance: object) -> list[str]:
    if name.name == "__init__":
        function = type(instance)
    else:
        try:
            function = getattr(instance, name.name)
        except AttributeError:
            return ["is missing"]
    if name.kind == "module":
        return [] if isinstance(function, nn.Module) else [f"is a {type(function).__name__}, not a module"]
    if name.signature is None:
        return [*wrong_value(name, verdict, function), *not_taken(name, instance)]
    return [*unbound(name, verdict, function), *unsaid(name, verdict, instance)]


def wrong_value(name: Name, verdict: Verdict, value: object) -> list[str]:
    """A setting has the same default, and nothing is None that was not, but where the verdict says that it differs."""
    if name.section.endswith("Config") and name.kind == "attribute":
        differs = json.loads(json.dumps(value)) != name.default
    else:
        differs = value is None and name.holds != "NoneType"
    if differs and not verdict.differs:
        return [f"is {value!r:.80}, there {name.default or name.holds!r}"]
    return []


def not_taken(name: Name, instance: object) -> list[str]:
    """A configuration is made with such a value, and written."""
    if name.section != "PersimmonConfig" or name.name not in VALUES:
        return []
    error = error_of(lambda: type(instance)(**{name.name: VALUES[name.name]}).to_json_string())
    return [] if error is None else [f"{VALUES[name.name]!r}: {error}"]


def unbound(name: Name, verdict: Verdict, function: object) -> list[str]:
    """The parameters that cannot be given by name."""
    signature = inspect.signature(function)
    takes = {*signature.parameters, *options(name)}
    if name.name == "__init__" and name.section.endswith("Config"):
        # Each setting has a verdict of its own.
        takes |= {setting for section, setting in VERDICTS if section == name.section}
    # `unsaid` gives those that are ignored or refused.
    wanted = [parameter for parameter in name.parameters if parameter not in {*verdict.ignored, *verdict.refuses}]
    missing = [parameter for parameter in wanted if parameter not in takes]
    return [f"does not take {', '.join(missing)}"] if missing else []


def unsaid(name: Name, verdict: Verdict, instance: object) -> list[str]:
    """The parameters that are taken without the word that the verdict promises."""
    said = []
    for parameter in verdict.ignored:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            error = error_of(call, name, instance, **{parameter: True})
        if error is not None or not any(parameter in str(warning.message) for warning in caught):
            said.append(f"{parameter}: {error or 'ignored without a word'}")
    for parameter, use in verdict.refuses.items():
        error = error_of(call, name, instance, **{parameter: True})
        if error is None or use not in error:
            said.append(f"{parameter}: {error or 'not refused'} does not say {use!r}")
    return said


def call(name: Name, instance: object, **keywords):
    """Call a method as its users do, with one more argument; what it may write goes with the folder."""
    with tempfile.TemporaryDirectory() as folder:
        return call_in(folder, name, instance, **keywords)


def call_in(folder: str, name: Name, instance: object, **keywords):
    arguments = {
        "from_pretrained": [MINI],
        "save_pretrained": [folder],
        "generate": [torch.tensor([[1, 2, 3]])],
        "from_dict": [{}],
        "__init__": [MINI / "tokenizer.model"],
        "__call__": ["some text"],
        "encode": ["some text"],
        "tokenize": ["some text"],
        "apply_chat_template": ["some text"],
    }.get(name.name, [])
    if name.name == "generate":
        keywords |= {"max_new_tokens": 1}
    return (type(instance) if name.name == "__init__" else getattr(instance, name.name))(*arguments, **keywords)


# The tests


def test_every_name_has_a_verdict():
    assert not sorted(set(NAMES) - set(VERDICTS))


def test_every_verdict_is_about_a_name():
    assert not sorted(set(VERDICTS) - set(NAMES))


def test_verdicts_speak_of_parameters_that_exist():
    odd = {
        key: sorted(parameters)
        for key, verdict in VERDICTS.items()
        if (parameters := {*verdict.ignored, *verdict.refuses} - {*NAMES[key].parameters})
    }
    assert not odd


@pytest.mark.parametrize("module", ["persimmon_lab", "transformers"])
def test_what_to_use_exists(module):
    """Names of modules in the words of a verdict can be imported."""
    words = [
        text for verdict in VERDICTS.values()
        for text in (verdict.refused, *verdict.ignored.values(), *verdict.refuses.values())
    ]  # fmt: skip
    paths = {path for text in words for path in re.findall(rf"\b{module}(?:\.\w+)+", text)}
    missing = []
    for path in sorted(paths):
        try:
            pkgutil.resolve_name(path)
        except (ImportError, AttributeError):
            missing.append(path)
    assert paths
    assert not missing


true_now = [key for key, verdict in VERDICTS.items() if not verdict.planned]
planned = [key for key, verdict in VERDICTS.items() if verdict.planned]


@pytest.mark.parametrize("key", true_now, ids=".".join)
def test_verdict_is_true(key):
    assert not complaints(NAMES[key], VERDICTS[key])


@pytest.mark.parametrize("key", planned, ids=".".join)
def test_planned_verdict_is_still_to_come(key):
    """Where this fails a verdict has come true: take its name out of `planned` in verdicts.toml."""
    assert complaints(NAMES[key], VERDICTS[key])


def test_page_is_current():
    command = [sys.executable, "tools/contract.py", "--check"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
