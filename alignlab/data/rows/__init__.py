"""Rows: one file for each kind, and what they share."""

from alignlab.data.rows.base import Branch, Completable, R, Row
from alignlab.data.rows.candidates import Candidates
from alignlab.data.rows.demonstration import Demonstration
from alignlab.data.rows.judged import JudgedCompletion
from alignlab.data.rows.labelled import LabelledText
from alignlab.data.rows.pair import PreferencePair
from alignlab.data.rows.prompt import Prompt
from alignlab.data.rows.ranking import Ranking
from alignlab.data.rows.rated import RatedCompletion
from alignlab.data.rows.report import Refuse, RowReport
from alignlab.data.rows.split import prompt_key, split_by_prompt, unit_hash
from alignlab.data.rows.values import Chat, Fields, Record, Refused, Text, Turn

__all__ = [
    "Branch",
    "Candidates",
    "Chat",
    "Completable",
    "Demonstration",
    "Fields",
    "JudgedCompletion",
    "LabelledText",
    "PreferencePair",
    "Prompt",
    "R",
    "Ranking",
    "RatedCompletion",
    "Record",
    "Refuse",
    "Refused",
    "Row",
    "RowReport",
    "Text",
    "Turn",
    "prompt_key",
    "split_by_prompt",
    "unit_hash",
]
