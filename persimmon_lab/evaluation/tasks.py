"""The tasks by name, and whatever else a name may mean: a file of one's own, a dataset of reasoning-gym."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from persimmon_lab.evaluation.arithmetic import Arithmetic
from persimmon_lab.evaluation.copying import Copying
from persimmon_lab.evaluation.items import Task
from persimmon_lab.evaluation.own_task import OwnTask
from persimmon_lab.evaluation.reasoning import PREFIX, ReasoningTask
from persimmon_lab.evaluation.skill_task import SkillTask
from persimmon_lab.training.skills import SKILLS

ALL = "all"
TASKS: Mapping[str, Task] = {task.name: task for task in map(SkillTask, (*SKILLS.values(), Copying(), Arithmetic()))}


def tasks_named(names: Iterable[str]) -> dict[str, Task]:
    """The tasks of these names, in this order: names of TASKS, `all` of them, the path of a file of JSON lines
    (`own_task`), or `reasoning-gym:` and a dataset.

    ValueError for a name that means none of these, for none at all, and for two tasks of one name.
    """
    tasks: dict[str, Task] = {}
    for name in names:
        found = dict(TASKS) if name == ALL else {task.name: task for task in [_task(name)]}
        if twice := [one for one in found if one in tasks]:
            raise ValueError(f"the task {twice[0]} was named twice; name each once")
        tasks |= found
    if not tasks:
        raise ValueError(f"no task was named; choose among {', '.join(TASKS)}, or {ALL}")
    return tasks


def _task(name: str) -> Task:
    if name in TASKS:
        return TASKS[name]
    if name.startswith(PREFIX):
        return ReasoningTask(name.removeprefix(PREFIX))
    path = Path(name)
    if path.is_file():
        return OwnTask(path)
    if path.suffix in (".jsonl", ".json") or len(path.parts) > 1:
        raise ValueError(f"there is no file {name}; a task of your own is a file of JSON lines")
    raise ValueError(
        f"there is no task {name!r}; choose among {', '.join(TASKS)}, {ALL}, a file of JSON lines such as "
        f"questions.jsonl, or {PREFIX}DATASET"
    )
