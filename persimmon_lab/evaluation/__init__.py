"""How good a model is, with intervals: what it says and what it holds to be probable, on questions with known answers.

`tasks` names them (`skill_task`, `copying`, `arithmetic`, `own_task`, `reasoning`; `items` says what one is). `run`
asks a model: `generated` judges what it writes, `likelihood` which of given answers it prefers (`distractors` makes
them), `demonstrations` shows it how. `five_gram` is the floor that has read and understands nothing, `overlap` asks
whether the model was told before. `answered` is what is kept of an item, `report` holds all of it with what it was made
with (`fingerprint`), `journal` keeps it while it is under way, `comparison` sets two reports side by side, `table`
shows them.
"""

from persimmon_lab.evaluation.answered import WAYS, Answered, Verdicts
from persimmon_lab.evaluation.comparison import Comparison, Difference, compare
from persimmon_lab.evaluation.five_gram import FiveGram, taught_five_gram
from persimmon_lab.evaluation.items import Item, Task
from persimmon_lab.evaluation.likelihood import Likelihood, likelihoods, pick
from persimmon_lab.evaluation.overlap import Overlap, overlaps
from persimmon_lab.evaluation.own_task import OwnTask
from persimmon_lab.evaluation.report import Report, Score, TaskReport
from persimmon_lab.evaluation.run import evaluate
from persimmon_lab.evaluation.table import Table, comparison_table, score_table
from persimmon_lab.evaluation.tasks import TASKS, tasks_named

__all__ = [
    "Answered",
    "Comparison",
    "Difference",
    "FiveGram",
    "Item",
    "Likelihood",
    "Overlap",
    "OwnTask",
    "Report",
    "Score",
    "TASKS",
    "Table",
    "Task",
    "TaskReport",
    "Verdicts",
    "WAYS",
    "compare",
    "comparison_table",
    "evaluate",
    "likelihoods",
    "overlaps",
    "pick",
    "score_table",
    "taught_five_gram",
    "tasks_named",
]
