from pathlib import Path

from alignlab.data.rows import Refused, RowReport
from alignlab.worlds.tally import tally, write_tally


def test_what_became_of_rows(tmp_path: Path) -> None:
    refusals = RowReport("posts", seen=6)
    for id, reason in (("1", "no title"), ("2", "empty, quite"), ("3", "no title")):
        refusals.add(id, Refused(reason))
    write_tally(tmp_path, tally("train", refusals, 3, {"at a word": 1}))
    assert (tmp_path / "rows.csv").read_text() == (
        "part,what,reason,rows\n"
        "train,read,,6\n"
        "train,refused,no title,2\n"
        'train,refused,"empty, quite",1\n'
        "train,cut,at a word,1\n"
        "train,kept,,3\n"
    )
