"""Write the documents that are made from the code: `python tools/documents.py`, or with `--check` say which are stale.

- `docs/pictures/floors.svg` is drawn from the layers in pyproject.toml;
- `docs/taps.md` is what hooks saw in a run of a tiny model;
- `docs/api.md` is read from the sources, which are parsed and not imported.

The same sources give the same bytes, on any machine.
"""

import argparse
import ast
import html
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # the documents of this checkout, whatever is installed

from persimmon_lab.anatomy import INPUT, LAYER, Axes, any_layer, axes_of, axis_sizes  # noqa: E402
from persimmon_lab.causal_lm import PersimmonForCausalLM  # noqa: E402
from persimmon_lab.classification import PersimmonForSequenceClassification  # noqa: E402
from persimmon_lab.config import PersimmonConfig  # noqa: E402
from persimmon_lab.trace.names import first_tensor, sites  # noqa: E402

PACKAGE = ROOT / "persimmon_lab"
COMMAND = "python tools/documents.py"
WIDTH = 120  # of a line of the documents

# The floors


def floors() -> list[list[str]]:
    """The rooms of each floor, the highest first, as the first contract of pyproject.toml names them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    layers = next(contract["layers"] for contract in contracts if contract["name"] == "The floors")
    return [[room.strip(" ()") for room in re.split(r"[|:]", layer)] for layer in layers]


def kind_of(room: str) -> str:
    """Whether a room of the contracts is a "folder", a "file", or still "planned"."""
    if (PACKAGE / room / "__init__.py").exists():
        return "folder"
    return "file" if (PACKAGE / f"{room}.py").exists() else "planned"


FLOOR_HEIGHT, ROOM_HEIGHT = 40, 28
LEFT, RIGHT, TOWER_LEFT, TOWER_RIGHT = 64, 800, 826, 926  # the sides of the house, and of viz beside it
ROOF_TOP, EAVES = 74, 142
PICTURE_WIDTH = 960
GAP = 8  # between rooms
STYLE = """
  .page { fill: #fbf8f3 } .wall { fill: #f1e9dd; stroke: #8a7a66 } .roof { fill: #bf4d22; stroke: #8a3f1f }
  .folder { fill: #ffe2c9; stroke: #c2622a } .file { fill: #d8e9f7; stroke: #2f6f9f }
  .planned { fill: none; stroke: #8a7a66; stroke-dasharray: 4 3 }
  .ground { stroke: #6b7d4a; stroke-width: 4 } .line { stroke: #d3c5b1 } .arrow { stroke: #5d5346; fill: none }
  text { fill: #2b2620; font: 13px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; text-anchor: middle }
  .title { font: bold 17px "DejaVu Sans", system-ui, sans-serif; text-anchor: start }
  .note { font: 12px "DejaVu Sans", system-ui, sans-serif; fill: #5d5346; text-anchor: start }
  .number { font-size: 12px; fill: #5d5346 } .on-roof { fill: #ffffff; font-weight: bold }
  @media (prefers-color-scheme: dark) {
    .page { fill: #1f1c18 } .wall { fill: #2a251f; stroke: #9c8c77 } .roof { fill: #b34a24; stroke: #e0875f }
    .folder { fill: #553016; stroke: #e08a4f } .file { fill: #173a54; stroke: #6fb0de }
    .planned { stroke: #9c8c77 } .line { stroke: #453d33 } .arrow { stroke: #b9ac9a }
    text { fill: #f3ece1 } .note, .number { fill: #b9ac9a } .ground { stroke: #8fa565 }
  }
"""


def box(kind: str, name: str, x: float, y: float, width: float, height: float) -> str:
    """A room with its name in the middle."""
    middle, line = x + width / 2, y + height / 2 + 4.5
    return (
        f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="4"/>'
        f'<text x="{middle:.1f}" y="{line:.1f}">{html.escape(name)}</text>'
    )


def widths(names: Sequence[str], room: float) -> list[float]:
    """How wide each room of a floor is: what its name needs, and an equal share of what is left."""
    needs = [8 * len(name) + 12 for name in names]
    spare = (room - GAP * (len(names) - 1) - sum(needs)) / len(names)
    return [need + spare for need in needs]


def floors_svg() -> str:
    """The house, drawn: a floor of the contract is a floor of the picture, and imports go down."""
    layers = floors()
    ground = EAVES + FLOOR_HEIGHT * len(layers)
    height = ground + 80
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {PICTURE_WIDTH} {height}" width="{PICTURE_WIDTH}" '
        f'height="{height}" role="img" aria-labelledby="title description">',
        '<title id="title">The floors of persimmon_lab</title>',
        '<desc id="description">'
        + html.escape("; ".join(f"floor {len(layers) - i - 1}: {', '.join(f)}" for i, f in enumerate(layers)))
        + "; viz stands beside them on its own ground</desc>",
        f"<style>{STYLE}</style>",
        f'<rect class="page" width="{PICTURE_WIDTH}" height="{height}" rx="10"/>',
        '<text class="title" x="24" y="34">The floors of persimmon_lab</text>',
        '<text class="note" x="24" y="54">A file imports from the floors below its own; the rooms of one floor know '
        "nothing of each other.</text>",
        f'<path class="roof" d="M{LEFT - 18} {EAVES} L{LEFT + 70} {ROOF_TOP} H{RIGHT - 70} L{RIGHT + 18} {EAVES} Z"/>',
        f'<text class="on-roof" x="{(LEFT + RIGHT) / 2}" y="{(ROOF_TOP + EAVES) / 2 + 5}">'
        "notebooks · benchmarks · tests</text>",
        f'<rect class="wall" x="{LEFT}" y="{EAVES}" width="{RIGHT - LEFT}" height="{ground - EAVES}"/>',
    ]
    for index, rooms in enumerate(layers):
        top = EAVES + FLOOR_HEIGHT * index
        if index:
            parts.append(f'<path class="line" d="M{LEFT} {top} H{RIGHT}"/>')
        parts.append(f'<text class="number" x="{LEFT - 16}" y="{top + 24}">{len(layers) - 1 - index}</text>')
        x = LEFT + GAP
        for room, width in zip(rooms, widths(rooms, RIGHT - LEFT - 2 * GAP), strict=True):
            parts.append(box(kind_of(room), room, x, top + (FLOOR_HEIGHT - ROOM_HEIGHT) / 2, width, ROOM_HEIGHT))
            x += width + GAP
    tower_top = EAVES + FLOOR_HEIGHT
    parts += [
        box("folder", "viz", TOWER_LEFT, tower_top, TOWER_RIGHT - TOWER_LEFT, ground - tower_top),
        f'<path class="ground" d="M20 {ground + 2} H{PICTURE_WIDTH - 20}"/>',
        f'<path class="arrow" d="M28 {EAVES + 20} V{ground - 20} m-5 -8 l5 8 l5 -8"/>',
        *legend(ground + 30),
        f'<text class="note" x="{LEFT}" y="{ground + 58}">viz draws from tensors, numbers and strings: it imports '
        "nothing of the house, and the model and the tokenizer nothing of it.</text>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def legend(y: int) -> Iterator[str]:
    x = LEFT
    for kind, meaning in (("folder", "a folder"), ("file", "a file"), ("planned", "in the contract, not built yet")):
        yield f'<rect class="{kind}" x="{x}" y="{y - 11}" width="22" height="14" rx="3"/>'
        yield f'<text class="note" x="{x + 30}" y="{y}">{meaning}</text>'
        x += 60 + 8 * len(meaning)
    yield f'<text class="note" x="{x}" y="{y}">↓ the way of an import</text>'


# The taps

BATCH, POSITIONS, PAST = 2, 5, 3  # all different from each other and from the sizes of the model
EAGER, FUSED = "eager", "sdpa"
WHERE: Mapping[str, str] = {
    "embed_tokens": "the row of each token: the residual stream begins",
    "input_layernorm": "LayerNorm of the residual stream, before the attention",
    "query_key_value": "one product for query, key and value of all heads, with its bias; head comes first",
    "q_layernorm": "LayerNorm of each head's query, over its channels (with `qk_layernorm`)",
    "k_layernorm": "the same of each head's key",
    "rotated_query": "the query after the norm, its first `rotary_dim` channels rotated by its position",
    "rotated_key": "the key, likewise, before the cache: keys of the past are not in it",
    "value": "the value, neither normalised nor rotated, before the cache",
    "scores": "query · key / √channel + mask; where a query may not look, the lowest number of the dtype",
    "pattern": "softmax of the scores over `key`, after dropout: what mixes the values",
    "head_output": "the values of each head, mixed by its pattern, before the heads are put side by side",
    "dense": "the heads mixed into one vector a position, with bias: what attention adds to the stream",
    "self_attn": "the same as `dense`; its output is a tuple, of which this is the first",
    "post_attention_layernorm": "LayerNorm of the residual stream after the attention, before the MLP",
    "dense_h_to_4h": "the neurons before their activation",
    "activations": "the neurons after the squared ReLU",
    "dense_4h_to_h": "what the neurons write, with bias",
    "mlp": "the same as `dense_4h_to_h`",
    "dropout": "what the MLP adds to the stream (dropout does nothing in evaluation mode)",
    LAYER: "the residual stream after the layer",
    "final_layernorm": "LayerNorm of the residual stream after the last layer",
    "lm_head": "the logits (`PersimmonForCausalLM`)",
    "score": "the logits of each row's last token (`PersimmonForSequenceClassification`)",
}

DIAGRAM = """
  layers.N:input                                           batch position hidden
  │
  ├─► input_layernorm
  │     query_key_value                                    batch position (head three channel)
  │       ├───────────────────┬───────────────────┐        batch head position channel, from here
  │     q_layernorm         k_layernorm           │
  │       │ rotary            │ rotary            │
  │     rotated_query       rotated_key         value
  │       │                   │                   │
  │       │                   ├─────► cache ◄─────┤        from here the past is in key and value
  │       └─────► scores ◄────┘                   │        batch head query key        eager only
  │                 │ softmax, dropout            │
  │               pattern ────────► mix ◄─────────┘        batch head query key        eager only
  │                                  │
  │                             head_output                batch head position channel
  │                                  │
  │                                dense = self_attn       batch position hidden
  +◄─────────────────────────────────┘
  │
  ├─► post_attention_layernorm
  │     dense_h_to_4h                                      batch position mlp
  │       │ squared ReLU
  │     activations                                        batch position mlp
  │       │
  │     dense_4h_to_h = mlp                                batch position hidden
  │       │
  │     dropout
  +◄──────┘
  │
  layers.N                                                 batch position hidden
""".strip("\n")


@dataclass(frozen=True)
class Sighting:
    """A place of the model as a hook saw it. `name` is a path with N for the layer, `:input` for what is given."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    is_tap: bool

    @property
    def part(self) -> str:
        """What the place is called by: the last part of its path, `layers.N` for a layer."""
        path = self.name.removesuffix(INPUT)
        return LAYER if path.endswith(LAYER) else path.rpartition(".")[2]

    @property
    def axes(self) -> Axes | None:
        """What `anatomy` says of it."""
        return axes_of(self.name.replace(LAYER, "layers.0"))


def tiny(model_class: type[nn.Module], dtype: torch.dtype, attention: str) -> nn.Module:
    config = PersimmonConfig.tiny(attn_implementation=attention, num_labels=3, pad_token_id=0)
    return model_class(config, torch.Generator().manual_seed(0)).eval().to(dtype)


def sightings(model: nn.Module) -> list[Sighting]:
    """What torch's own hooks see in one pass over new positions after some that are cached: outputs in the order in
    which they are made, and inputs; of all layers the first."""
    seen: dict[str, Sighting] = {}
    patterns = ["*", f"*{INPUT}"]

    def look(name: str, module: nn.Module, tensor: object) -> None:
        tensor = first_tensor(tensor)
        if tensor is not None:
            name = any_layer(name)
            seen.setdefault(name, Sighting(name, tuple(tensor.shape), tensor.dtype, isinstance(module, nn.Identity)))

    ids = torch.arange(BATCH * (PAST + POSITIONS)) % (model.config.vocab_size - 1) + 1
    ids = ids.unflatten(0, (BATCH, -1))
    has_head = isinstance(model, PersimmonForCausalLM)
    with torch.no_grad():
        past = model(ids[:, :PAST], use_cache=True).past_key_values if has_head else None
        for site in sites(model, patterns):
            if site.is_input:
                site.module.register_forward_pre_hook(
                    lambda module, given, named, name=site.name: look(name, module, (*given, *named.values())),
                    with_kwargs=True,
                )
            else:
                site.module.register_forward_hook(lambda module, given, made, name=site.name: look(name, module, made))
        model(ids[:, PAST:] if has_head else ids, past_key_values=past)
    return list(seen.values())


@dataclass(frozen=True)
class Row:
    """A place with what the two ways of attention and two dtypes have shown of it."""

    sighting: Sighting
    attention: str
    dtype: str


def rows() -> list[Row]:
    """Every output of a causal language model in the order in which they are made, then a classifier's head."""
    seen = {
        (attention, dtype): {each.name: each for each in sightings(tiny(PersimmonForCausalLM, dtype, attention))}
        for attention in (EAGER, FUSED)
        for dtype in (torch.float32, torch.bfloat16)
    }
    classifier = {
        dtype: {
            each.name: each for each in sightings(tiny(PersimmonForSequenceClassification, dtype, EAGER))
            if each.part == "score"
        }
        for dtype in (torch.float32, torch.bfloat16)
    }  # fmt: skip
    found = []
    for name, sighting in seen[EAGER, torch.float32].items():
        in_both = name in seen[FUSED, torch.float32]
        dtypes = [seen[EAGER, dtype][name].dtype for dtype in (torch.float32, torch.bfloat16)]
        found.append(Row(sighting, "both" if in_both else EAGER, dtype_of(dtypes)))
    for name, sighting in classifier[torch.float32].items():
        dtypes = [classifier[dtype][name].dtype for dtype in (torch.float32, torch.bfloat16)]
        found.append(Row(sighting, "both", dtype_of(dtypes)))
    return found


def dtype_of(dtypes: Sequence[torch.dtype]) -> str:
    """What a float32 and a bfloat16 model have made."""
    if list(dtypes) == [torch.float32, torch.bfloat16]:
        return "the model's"
    return " / ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)


def taps_page() -> str:
    """Every place where an activation can be seen, as a table, under a drawing of one layer."""
    seen = rows()
    outputs = [row for row in seen if not row.sighting.name.endswith(INPUT)]
    inputs = [row for row in seen if row.sighting.name.endswith(INPUT)]
    made = {row.sighting.part: row.sighting.axes for row in outputs}
    others = [row for row in inputs if row.sighting.part in made and row.sighting.axes != made[row.sighting.part]]
    taps = [row for row in outputs if row.sighting.is_tap]
    sizes = axis_sizes(PersimmonConfig.tiny(num_labels=3), BATCH, POSITIONS, PAST)
    named = [f"{axis} {sizes[axis]}" for axis in
             ("batch", "position", "query", "key", "head", "channel", "hidden", "mlp", "vocab", "label")]  # fmt: skip
    lines = [
        f"<!-- Written by `{COMMAND}`; edit that. -->",
        "# Where to look inside",
        "",
        "A *tap* is an `nn.Identity` that the model passes an activation through, so that a hook on its module sees it "
        "or replaces it. Every other module can be listened to in the same way, at its output or, as `PATH:input`, at "
        "what it is given. The names are module paths; a pattern may be the end of one: `scores` is every layer's, "
        "`layers.3.mlp` one layer's.",
        "",
        "```python",
        "from persimmon_lab.trace.capture import capture",
        "",
        'trace = capture(model, ids, only=["pattern", "layers.3:input"])',
        'trace["model.layers.3.self_attn.pattern"]  # (batch head query key)',
        "```",
        "",
        "## One layer",
        "",
        "```text",
        DIAGRAM,
        "```",
        "",
        "`+` is an addition to the residual stream. Rotary turns the first `rotary_dim` channels of a head, the others "
        "pass.",
        "",
        "## The taps",
        "",
        f"Seen by hooks in a run of `PersimmonConfig.tiny()` over {POSITIONS} positions after {PAST} in the cache, in "
        f"the order in which they are made: {', '.join(named)}. Paths are of `PersimmonForCausalLM`; in a bare "
        "`PersimmonModel` they begin with `layers`.",
        "",
        *table(taps),
        "",
        "## The other modules",
        "",
        *table([row for row in outputs if not row.sighting.is_tap]),
        "",
        "## Inputs with other axes",
        "",
        "Of all other modules the input has the axes of the output. `embed_tokens` and the whole model are given ids, "
        "which are no activation.",
        "",
        "| input | axes | in the run | dtype |",
        "|---|---|---|---|",
        *(
            f"| `{row.sighting.name}` | {' '.join(row.sighting.axes)} | {shown(row.sighting.shape)} | {row.dtype} |"
            for row in others
        ),
        "",
        "## What surprises",
        "",
        "- **Eager only.** The fused kernel never builds `scores` and `pattern`. `capture` and its relatives ask for "
        "eager attention for their own pass; a hook of your own needs `attn_implementation=\"eager\"`.",
        "- **NaN.** torch's fused kernel on a CPU with AVX-512 gives zeros to a query whose scores are all NaN, "
        "so that a broken model looks sound (in `transformers` too). Here such a query gets NaN, as in eager. In "
        "eager and under a mask a key that is NaN reaches the queries before it as well.",
        "- **New positions.** With a cache, everything but `key` is as long as what the pass reads; `key` counts the "
        "past as well. Keys and values of the past pass no tap again.",
        "- **Engines.** `generate` leaves its fast engine for the plain model while a hook listens.",
        "- **An input is one reader's.** `post_attention_layernorm:input` is the residual stream between attention and "
        "MLP; to change it there changes what the norm reads alone.",
        "- **Without `qk_layernorm`** there is no `q_layernorm` and no `k_layernorm`.",
        "- **Elsewhere.** `transformers` has some of these names with the axes in another order: there, query and key "
        "are normalised before the heads move ahead of the positions.",
    ]  # fmt: skip
    return "\n".join(line if line.startswith(("|", " ", "```")) else folded(line) for line in lines) + "\n"


def table(found: Sequence[Row]) -> list[str]:
    return [
        "| path | axes | in the run | dtype | attention | where it stands |",
        "|---|---|---|---|---|---|",
        *(
            f"| `{row.sighting.name}` | {' '.join(row.sighting.axes or ('?',))} | {shown(row.sighting.shape)} | "
            f"{row.dtype} | {row.attention} | {WHERE[row.sighting.part]} |"
            for row in found
        ),
    ]


def shown(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))


def folded(line: str) -> str:
    """A paragraph or an item of a list in lines of at most WIDTH characters."""
    if line.startswith("#"):
        return line
    before = re.match(r" *(- )?", line)[0]
    indent = " " * len(before)
    first, *words = line.removeprefix(before).split(" ")
    kept, current = [], before + first
    for word in words:
        begins_a_list = re.fullmatch(r"[-+#>]+|\d+[.)]", word)  # where it stands first in a line
        if len(current) + 1 + len(word) > WIDTH and not begins_a_list:
            kept.append(current)
            current = indent + word
        else:
            current = f"{current} {word}"
    return "\n".join([*kept, current])


# The names


@dataclass(frozen=True)
class Name:
    """A public name, its kind ("class", "function", "value" or "module") and the first sentence about it."""

    name: str
    kind: str
    first: str
    methods: tuple["Name", ...] = ()


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def module_files() -> dict[str, Path]:
    """Every module of the package by its name: the package itself, then folder by folder."""
    paths = [
        path
        for path in PACKAGE.rglob("*.py")
        if not any(part.startswith("_") and part != "__init__.py" for part in path.relative_to(PACKAGE).parts)
    ]

    def place(path: Path) -> tuple:
        return path.parent.relative_to(PACKAGE).parts, path.name != "__init__.py", path.name

    return {module_name(path): path for path in sorted(paths, key=place)}


def first_sentence(node: ast.AST) -> str:
    """The first line of a docstring, to the end of its sentence or paragraph."""
    paragraph = re.split(r"\n\s*\n", ast.get_docstring(node) or "")[0]
    return re.split(r"(?<=[.!?])\s+(?=[A-Z(])", " ".join(paragraph.split()))[0]


def defined(tree: ast.Module) -> dict[str, Name]:
    """The names that a module defines without an underscore before them."""
    names: dict[str, Name] = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            names[node.name] = Name(node.name, "class", first_sentence(node), tuple(methods(node)))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names[node.name] = Name(node.name, "function", first_sentence(node))
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in (part for each in targets for part in ast.walk(each)):
                if isinstance(target, ast.Name) and isinstance(target.ctx, ast.Store):
                    names[target.id] = Name(target.id, "value", "")
    return {name: found for name, found in names.items() if not name.startswith("_")}


def methods(node: ast.ClassDef) -> Iterator[Name]:
    """The public methods and properties that say what they do."""
    for inner in node.body:
        if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef) and not inner.name.startswith("_"):
            decorators = [ast.unparse(decorator) for decorator in inner.decorator_list]
            if any(decorator.endswith((".setter", ".deleter")) for decorator in decorators):
                continue
            kind = "value" if any("property" in decorator for decorator in decorators) else "function"
            if first := first_sentence(inner):
                yield Name(inner.name, kind, first)


def exported(tree: ast.Module) -> list[str] | None:
    """What `__all__` lists; None where there is none."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            return ast.literal_eval(node.value)
    return None


class Names:
    """The public names of every module."""

    def __init__(self) -> None:
        self.files = module_files()
        self.trees = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in self.files.items()}

    def public(self, module: str) -> list[Name]:
        """`__all__` in alphabetical order where there is one, else what is defined, in the order of the file."""
        tree = self.trees[module]
        names = exported(tree)
        if names is None:
            return list(defined(tree).values())
        return [self.find(module, name) for name in sorted(names, key=str.lower)]

    def find(self, module: str, name: str) -> Name:
        """A name that a module offers: its own, or one that it imports. Raises KeyError for one that it has not."""
        own = defined(self.trees[module])
        if name in own:
            return own[name]
        if f"{module}.{name}" in self.trees:
            return Name(name, "module", first_sentence(self.trees[f"{module}.{name}"]))
        for node in self.trees[module].body:
            if isinstance(node, ast.ImportFrom) and node.module in self.trees:
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        found = self.find(node.module, alias.name)
                        return Name(name, found.kind, found.first)  # its methods are told of where it is defined
        raise KeyError(f"{module} lists {name!r} in __all__ and neither defines nor imports it")


def in_markdown(text: str) -> str:
    """Docstring text whose stars, brackets and tags stand as they are; what is in backticks is left alone."""
    parts = re.split(r"(`[^`]*`)", text)
    parts[::2] = [re.sub(r"([*\[\]<]|(?<!\w)_|_(?!\w))", r"\\\1", part) for part in parts[::2]]
    return "".join(parts)


def api_page() -> str:
    """Every public name of every module with its first sentence."""
    names = Names()
    lines = [
        f"<!-- Written by `{COMMAND}`; edit the docstrings. -->",
        "# Every public name",
        "",
        "What a module lists in `__all__`, else what it defines without an underscore, with the first sentence of its "
        "docstring. The command line has its own help: `persimmon-lab --help`.",
        "",
    ]
    rooms: dict[str, list[str]] = {}
    for module in names.files:
        path = names.files[module].relative_to(PACKAGE)
        rooms.setdefault(path.parts[0] if len(path.parts) > 1 else "", []).append(module)
    anchors = [f"[{room or 'the model'}](#{room or 'the-model'})" for room in rooms]
    lines += [" · ".join(anchors), ""]
    for room, modules in rooms.items():
        lines += [f"## {room or 'The model'}", ""]
        for module in modules:
            lines += module_lines(names, module)
    return "\n".join(folded(line) for line in lines).rstrip("\n") + "\n"


def module_lines(names: Names, module: str) -> Iterator[str]:
    found = names.public(module)
    first = first_sentence(names.trees[module])
    if not found and not first:
        return
    path = names.files[module].relative_to(ROOT).as_posix()
    yield f"### [`{module}`](../{path})"
    yield ""
    if first:
        yield in_markdown(first)
        yield ""
    told = [each for each in found if each.kind != "value"]
    for each in told:
        yield item(each)
        for method in each.methods:
            yield "  " + item(method, owner=f"{each.name}.")
    values = [f"`{each.name}`" for each in found if each.kind == "value"]
    if values:
        yield f"- values and types: {', '.join(values)}"
    if found:
        yield ""


def item(name: Name, owner: str = "") -> str:
    call = "()" if name.kind == "function" else ""
    kind = "class " if name.kind == "class" else ""
    return f"- `{kind}{owner}{name.name}{call}`" + (f": {in_markdown(name.first)}" if name.first else "")


# All of them


def documents() -> dict[Path, str]:
    """What each of the made files should be."""
    docs = ROOT / "docs"
    return {
        docs / "pictures" / "floors.svg": floors_svg(),
        docs / "taps.md": taps_page(),
        docs / "api.md": api_page(),
    }


def stale(made: Mapping[Path, str]) -> list[Path]:
    """The files that are not what they should be, or not there."""
    return [
        path
        for path, text in made.items()
        if not path.exists() or path.read_bytes().replace(b"\r\n", b"\n") != text.encode()
    ]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Write the documents that are made from the code.")
    parser.add_argument("--check", action="store_true", help="write nothing; name the files that are stale and exit 1")
    check = parser.parse_args(arguments).check
    made = documents()
    changed = stale(made)
    for path in changed:
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(made[path], encoding="utf-8", newline="\n")
        print(f"{path.relative_to(ROOT).as_posix()}: {f'stale; run {COMMAND}' if check else 'written'}")
    return 1 if check and changed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
