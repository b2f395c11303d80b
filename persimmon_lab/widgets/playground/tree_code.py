"""A tree of texts as Python: what writes each branch again, token for token."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from persimmon_lab.widgets.playground.settings import MODEL_AND_TOKENIZER, Settings
from persimmon_lab.widgets.playground.tree import Branch


def tree_code(
    branches: Sequence[Branch], limit: int, prompt_length: Callable[[Settings], int], load: str | None = None
) -> str:
    """Python that leaves the ids of these branches in `branches`, under their numbers, and prints the texts.

    `branches` come with their parents before them; `limit` is the model's number of positions and
    `prompt_length(settings)` that of a prompt. A continuation starts from the kept ids with a seed of its own: so it
    is the same whatever was written before.
    """
    parts = ["import torch", load or MODEL_AND_TOKENIZER, "", "branches = {}"]
    prompts: dict[tuple[str, bool], str] = {}
    for branch in branches:
        settings = branch.settings
        if not branch.tokens:
            continue
        key = (settings.prompt, settings.chat)
        if key not in prompts:
            prompts[key] = f"prompt_{len(prompts) + 1}"
            parts += ["", f"{prompts[key]} = {settings.prompt_code()}"]
        parts.append("")
        ids = prompts[key]
        if branch.parent is not None:
            parts.append(f"ids = branches[{branch.parent.number}][:, : {ids}.shape[1] + {branch.fork}]")
            ids = "ids"
        if branch.forced:
            token = branch.tokens[0]
            parts.append(f"ids = torch.cat([ids, ids.new_tensor([[{token.token_id}]])], dim=1)  # {token.piece!r}")
        if branch.generated:
            room = limit - prompt_length(settings) - branch.fork - branch.forced
            repeatable = capped(branch, room)
            parts.append(f"branches[{branch.number}] = {repeatable.generate_code(ids)}")
        else:
            parts.append(f"branches[{branch.number}] = {ids}")
    parts += [
        "",
        "for number, ids in branches.items():",
        '    print(f"[{number}]", tokenizer.decode(ids[0], skip_special_tokens=True))',
    ]
    return "\n".join(parts)


def capped(branch: Branch, room: int) -> Settings:
    """Its settings, with no more new tokens than there is room for after what it keeps."""
    settings = branch.repeatable_settings
    if branch.parent is None:
        return settings  # a prompt that leaves too little room is an error, as it is in generate
    return replace(settings, max_new_tokens=min(settings.max_new_tokens, room))
