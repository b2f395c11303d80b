"""What transformers 4.37.2 offers under its names, and what persimmon_lab says to each of them.

`python tools/contract.py` writes `docs/contract.md` from two files of `tests/contract`; with `--check` it says whether
the page is stale:

- `names-4.37.2.json`, the names and signatures, as `benchmarks/.venv-4.37.2/bin/python tools/contract.py --names`
  lists them from that version itself;
- `verdicts.toml`, a verdict for each, written by hand and held to by `tests/contract/test_contract.py`.
"""

import argparse
import ast
import importlib
import inspect
import json
import re
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "tests" / "contract"
NAMES, VERDICTS, PAGE = FOLDER / "names-4.37.2.json", FOLDER / "verdicts.toml", ROOT / "docs" / "contract.md"
VERSION = "4.37.2"
SPECIAL = ("__init__", "__call__", "__len__")  # public though their names begin with an underscore
OF_MODULE = ("forward", "__call__", "__init__")  # torch.nn.Module has them, but their arguments are the class's own


@dataclass(frozen=True)
class Name:
    """A public name of a class of 4.37.2.

    `owner` defines it; `kind` is "method", "classmethod", "staticmethod", "property", "attribute" or "module".
    `signature` is Python without annotations and without self, `...` for a default that cannot be written as a literal.
    `keywords` are those that a function takes out of its `**kwargs`. `default` is the value of a configuration's field,
    `holds` the type of what an attribute or a property gives.
    """

    section: str
    name: str
    owner: str
    kind: str
    signature: str | None = None
    keywords: list[str] = field(default_factory=list)
    default: Any = None
    holds: str | None = None

    @property
    def parameters(self) -> list[str]:
        """Everything that may be given by name."""
        if self.signature is None:
            return []
        function = ast.parse(f"def f{self.signature}: ...").body[0]
        named = [argument.arg for argument in (*function.args.args, *function.args.kwonlyargs)]
        return [*named, *(keyword for keyword in self.keywords if keyword not in named)]


# The names, from 4.37.2 itself


def list_names() -> list[Name]:
    """Every public name of the classes that the page of Persimmon tells of, `torch.nn.Module`'s own left out."""
    transformers = importlib.import_module("transformers")
    if transformers.__version__ != VERSION:
        raise SystemExit(
            f"this is transformers {transformers.__version__}; make the environment of {VERSION} with "
            "`python -m benchmarks.old_transformers` and run `benchmarks/.venv-4.37.2/bin/python tools/contract.py "
            "--names`"
        )
    config = transformers.PersimmonConfig(
        vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
    )
    classes = {
        name: {item.name: item for item in public_names(name, getattr(transformers, name)(config))}
        for name in ("PersimmonModel", "PersimmonForCausalLM", "PersimmonForSequenceClassification")
    }
    # What all three models have in common is told once, and decoding of the one class that can.
    writer = classes["PersimmonForCausalLM"]
    common = [item for item in writer.values() if all(same(item, names.get(item.name)) for names in classes.values())]
    names = []
    for item in common:
        owner = "PreTrainedModel" if item.owner == "PersimmonForCausalLM" else item.owner
        section = "GenerationMixin" if owner == "GenerationMixin" else "PreTrainedModel"
        names.append(replace(item, section=section, owner=owner))
    told = {item.name for item in common}
    for items in classes.values():
        names += [items[name] for name in items if name not in told or (name == "generate" and items is not writer)]
    tokenizer = transformers.LlamaTokenizerFast(tokenizer_file=str(ROOT / "persimmon_lab" / "mini" / "tokenizer.json"))
    names += public_names("PersimmonConfig", transformers.PersimmonConfig())
    names += public_names("GenerationConfig", transformers.GenerationConfig())
    names += public_names("LlamaTokenizerFast", tokenizer)
    return names


def same(one: Name, other: Name | None) -> bool:
    return other is not None and (one.kind, one.signature) == (other.kind, other.signature)


def public_names(section: str, instance: Any) -> list[Name]:
    """The names of a class and those that its constructor sets, in alphabetical order."""
    kind = type(instance)
    module = next((base for base in kind.__mro__ if base.__module__ == "torch.nn.modules.module"), object)
    own = {*dir(kind), *vars(instance), *vars(instance).get("_modules", ())}
    own = {name for name in own if not name.startswith("_") and name not in {*dir(module), "training"}}
    own |= {name for name in SPECIAL if name in dir(kind) and getattr(kind, name) is not getattr(object, name, None)}
    own |= {name for name in OF_MODULE if module is not object and name != "__call__"}
    own -= {"__call__"} if module is not object else set()
    return [describe(section, instance, name) for name in sorted(own)]


def describe(section: str, instance: Any, name: str) -> Name:
    owner = next((base for base in type(instance).__mro__ if name in vars(base)), type(instance))
    member = inspect.getattr_static(type(instance), name, None)
    if isinstance(member, property):
        return Name(section, name, owner.__name__, "property", holds=type(getattr(instance, name)).__name__)
    if not inspect.isroutine(member) and not isinstance(member, classmethod | staticmethod):
        if name in vars(instance).get("_modules", ()):
            return Name(section, name, owner.__name__, "module")
        value = getattr(instance, name)
        default = literal(value) if section.endswith("Config") else None
        return Name(section, name, owner.__name__, "attribute", default=default, holds=type(value).__name__)
    kind = type(member).__name__ if isinstance(member, classmethod | staticmethod) else "method"
    function = inspect.unwrap(member.__func__ if kind != "method" else member)
    return Name(section, name, owner.__name__, kind, signature(function, kind), keywords(function))


def signature(function: Any, kind: str) -> str:
    """`(a, b=1, *, c=None, **kwargs)`: without self, annotations, and defaults that are no literals."""
    parameters = list(inspect.signature(function).parameters.values())[kind != "staticmethod" :]
    empty = inspect.Parameter.empty
    bare = [
        parameter.replace(
            annotation=empty,
            default=empty if parameter.default is empty else Written(parameter.default),
        )
        for parameter in parameters
    ]
    return str(inspect.Signature(bare))


class Written:
    """A default whose repr is Python."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return "..." if literal(self.value) is Ellipsis else repr(self.value)


def literal(value: Any) -> Any:
    """The value itself where JSON can hold it, else `...` (which is written as null)."""
    plain = isinstance(value, str | int | float | bool | list | dict | type(None))
    return value if plain else ...


def keywords(function: Any) -> list[str]:
    """What a function takes out of `**kwargs`, by its source: `kwargs.pop("torch_dtype", None)`."""
    taken = re.findall(r"\bkwargs\.(?:pop|get)\(\s*[\"'](\w+)[\"']", textwrap.dedent(inspect.getsource(function)))
    return sorted({name for name in taken if not name.startswith("_")})


def write_names(names: list[Name]) -> None:
    rows = [
        json.dumps(
            {key: value for key, value in asdict(item).items() if value not in (None, [])}, default=lambda _: None
        )
        for item in names
    ]
    NAMES.write_text("[\n" + ",\n".join(rows) + "\n]\n", encoding="utf-8")


def read_names() -> list[Name]:
    return [Name(**row) for row in json.loads(NAMES.read_text(encoding="utf-8"))]


# The verdicts


@dataclass(frozen=True)
class Verdict:
    """What persimmon_lab says to a name.

    There, if `refused` is empty: under this name, with the parameters of the old signature by theirs, but for those in
    `ignored`, which are accepted with a word (a warning that names them), and those in `refuses`, whose error says what
    to use. `differs` says where a value or a default is another one. Else refused: the error says to use `refused`.

    `planned`: so it shall be, and is not yet.
    """

    refused: str = ""
    ignored: dict[str, str] = field(default_factory=dict)
    refuses: dict[str, str] = field(default_factory=dict)
    differs: str = ""
    planned: bool = False


def read_verdicts() -> dict[tuple[str, str], Verdict]:
    """By section and name. In verdicts.toml a section lists what is `there`, what is `refused` with what to use, what
    is `planned`, and holds a table for each name that needs more words."""
    verdicts: dict[tuple[str, str], Verdict] = {}
    for section, table in tomllib.loads(VERDICTS.read_text(encoding="utf-8")).items():
        words: dict[str, dict[str, Any]] = {name: {} for name in table.pop("there", [])}
        for name, use in table.pop("refused", {}).items():
            words[name] = {"refused": use}
        planned = table.pop("planned", [])
        words |= table
        if unknown := sorted(set(planned) - set(words)):
            raise ValueError(f"{VERDICTS.name}: {section} plans {', '.join(unknown)} and has no verdict of them")
        for name, fields in words.items():
            verdicts[section, name] = Verdict(**fields, planned=name in planned)
    return verdicts


# The page

TITLES = {
    "PreTrainedModel": "Every model",
    "GenerationMixin": "Decoding, of `PersimmonForCausalLM`",
    "PersimmonModel": "`PersimmonModel`",
    "PersimmonForCausalLM": "`PersimmonForCausalLM`",
    "PersimmonForSequenceClassification": "`PersimmonForSequenceClassification`",
    "PersimmonConfig": "`PersimmonConfig`",
    "GenerationConfig": "`GenerationConfig`",
    "LlamaTokenizerFast": "The tokenizer: `PersimmonTokenizer` for `LlamaTokenizerFast`",
}
HEAD = """# The contract

The page of Persimmon in transformers 4.37.2 says what its classes inherit. Here is every public name of them, with what
the class of the same name says to it in persimmon_lab:

- **there**: with the same parameters by the same names;
- **there, ignored with a word**: the parameters named are accepted, and a warning says that they do nothing;
- **refused**: asking for it is an error that says what to use.

Verdicts marked *planned* are not true yet. Names of `torch.nn.Module` are torch's. Written by `python
tools/contract.py` from `tests/contract`; `tests/contract/test_contract.py` holds the classes to it.
"""


def page() -> str:
    names, verdicts = read_names(), read_verdicts()
    return "\n".join(
        [HEAD, counts(verdicts), *(part for title in TITLES for part in section_of(title, names, verdicts))]
    )


def counts(verdicts: dict[tuple[str, str], Verdict]) -> str:
    refused = sum(bool(verdict.refused) for verdict in verdicts.values())
    planned = sum(verdict.planned for verdict in verdicts.values())
    return f"{len(verdicts)} names: {len(verdicts) - refused} there, {refused} refused; {planned} of these planned.\n"


def section_of(section: str, names: list[Name], verdicts: dict[tuple[str, str], Verdict]) -> Iterator[str]:
    yield f"## {TITLES[section]}\n"
    yield "| name | from | verdict |"
    yield "|---|---|---|"
    for item in names:
        if item.section == section:
            verdict = verdicts.get((section, item.name))
            said = "none yet" if verdict is None else in_words(verdict)
            yield f"| `{item.name}` | {item.owner}, {item.kind} | {said} |"
    yield ""


def in_words(verdict: Verdict) -> str:
    if verdict.refused:
        said = [f"refused: use {verdict.refused}"]
    else:
        said = ["there, ignored with a word: " + listed(verdict.ignored) if verdict.ignored else "there"]
        said += [f"refuses {listed(verdict.refuses)}"] if verdict.refuses else []
        said += [verdict.differs] if verdict.differs else []
    return ("*planned*: " if verdict.planned else "") + "; ".join(said).replace("|", "\\|")


def listed(parameters: dict[str, str]) -> str:
    return ", ".join(f"`{name}` ({word})" if word else f"`{name}`" for name, word in parameters.items())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", action="store_true", help=f"list the names anew, from transformers {VERSION}")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where docs/contract.md is stale")
    options = parser.parse_args()
    if options.names:
        write_names(list_names())
        return 0
    text = page()
    if options.check:
        if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
            print(f"{PAGE.relative_to(ROOT)} is stale; write it anew with `python tools/contract.py`")
            return 1
        return 0
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
