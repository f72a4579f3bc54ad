"""Both files of a folder of results, by hand."""

from pathlib import Path

import pytest

from alignlab.claims.card import Card, Claim
from alignlab.claims.cards import CARDS
from alignlab.claims.finding import HELD, NOT_RUN, UNRESOLVED, mean_of
from alignlab.claims.page import decide, write_claims
from alignlab.claims.tables import NotReached
from alignlab.errors import DataError
from alignlab.results.csv_tables import read_table, write_table


def below_one(folder):
    return mean_of(folder.by_seed("t.csv", "x"), high=1.0)


def not_reached(folder):
    raise NotReached


SMALL = Claim("x is below 1", "ours", below_one)
OURS = (
    Card("C1", "a thing", (SMALL, SMALL._replace(folder="theirs"))),
    Card("C2", "another", (SMALL,)),
    Card("C3", "nobody measured this"),
    Card("C4", "far away", (Claim("never there", "ours", not_reached),)),
)


def test_every_card_has_a_verdict(tmp_path: Path) -> None:
    rows = [{"run": f"a-s{i}", "x": x} for i, x in enumerate((0.1, 0.2, 0.3))]
    write_table(tmp_path / "ours" / "t.csv", rows)
    said = write_claims(tmp_path, OURS)
    assert said.split("\n")[1] == "C2   held          another"
    found = {(r["card"], r["folder"]): r for r in read_table(tmp_path / "claims.csv")}
    assert [row["verdict"] for row in found.values()] == [
        HELD, NOT_RUN, HELD, NOT_RUN, UNRESOLVED,
    ]  # fmt: skip
    row = found["C2", "ours"]
    assert (row["value"], row["n"], row["needed"]) == ("0.2", "3", "")
    assert float(row["lo"]) == pytest.approx(0.2 - 0.2484138, abs=1e-5)
    page = (tmp_path / "README.md").read_text()
    assert "Of 4 cards: 1 held, 2 not run, 1 not resolved." in page
    assert "| C1 | a thing | not run |" in page
    assert "| C2 | x is below 1 | held | 0.2 [-0.0484, 0.448] | 3 |" in page
    assert "| C3 | nobody measured this | not run |" in page


def test_how_many_runs_would_resolve_it(tmp_path: Path) -> None:
    rows = [{"run": f"a-s{i}", "x": x} for i, x in enumerate((-1.0, 0.0, 1.0))]
    write_table(tmp_path / "ours" / "t.csv", rows)
    write_claims(tmp_path, OURS[1:2])
    assert "not resolved (10 runs would resolve it)" in (tmp_path / "README.md").read_text()


def test_a_damaged_table_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "t.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="not a CSV table"):
        decide(tmp_path, SMALL)
    with pytest.raises(DataError, match="no such folder"):
        write_claims(tmp_path / "none")


def test_nothing_is_known_of_an_empty_folder(tmp_path: Path) -> None:
    write_claims(tmp_path)
    rows = read_table(tmp_path / "claims.csv")
    assert {row["verdict"] for row in rows} == {NOT_RUN}
    assert len({row["card"] for row in rows}) == len(CARDS)


def test_the_committed_page_is_what_the_command_writes(tmp_path: Path) -> None:
    committed = Path(__file__).parents[2] / "results"
    for folder in committed.iterdir():
        if folder.is_dir():
            (tmp_path / folder.name).symlink_to(folder)
    write_claims(tmp_path)
    for name in ("README.md", "claims.csv"):
        assert (tmp_path / name).read_text() == (committed / name).read_text()
