"""The names of a classifier's labels, which transformers' configurations keep twice: `id2label` and `label2id`."""

from typing import Any

from persimmon_lab.field_checks import is_whole, shown


def take_label_names(named: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a configuration without `id2label` and `label2id`: counted in `num_labels`, kept in `extra`."""
    names = named.pop("id2label", None)
    ids = named.pop("label2id", None)
    check_label_names(names, ids)
    if not (names or ids):
        return named
    names = names or {index: name for name, index in ids.items()}
    if named.setdefault("num_labels", len(names)) != len(names):
        raise ValueError(f"num_labels is {named['num_labels']!r}, but id2label has {len(names)} names")
    extra = {key: value for key, value in named.get("extra", {}).items() if key != "label2id"}
    return named | {"extra": {**extra, "id2label": names}}


def check_label_names(names: Any, ids: Any) -> None:
    """Raise ValueError unless each is a dictionary or None, numbers to names and names to numbers, and both agree."""
    for field_name, labels in (("id2label", names), ("label2id", ids)):
        if labels is not None and not isinstance(labels, dict):
            raise ValueError(f"{field_name} is {shown(labels)}; it has to be a dictionary of labels, or None")
    for index in [*(names or {}), *(ids or {}).values()]:
        if not (is_whole(index) or (isinstance(index, str) and index.isdecimal())):
            raise ValueError(f"id2label and label2id number the labels; {shown(index)} is no whole number")
    if not (names and ids):
        return
    if {name: int(index) for index, name in names.items()} != {name: int(index) for name, index in ids.items()}:
        raise ValueError(f"id2label is {shown(names)}, but label2id is {shown(ids)}; one is the other turned around")


def settle_label_names(extra: dict[str, Any], num_labels: int) -> dict[str, Any]:
    """`extra` with the names by whole numbers and the numbers by names; names of another number of labels are dropped,
    as in a copy of a configuration with another `num_labels`."""
    check_label_names(extra.get("id2label"), extra.get("label2id"))
    if not extra.get("id2label"):
        return dict(extra)
    names = {int(index): name for index, name in extra["id2label"].items()}
    others = {key: value for key, value in extra.items() if key not in ("id2label", "label2id")}
    if len(names) != num_labels:
        return others
    return {**others, "id2label": names, "label2id": {name: index for index, name in names.items()}}
