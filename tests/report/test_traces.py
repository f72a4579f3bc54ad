"""What the figure of the page holds."""

from pathlib import Path

from alignlab.report.page import write_page
from tests.report.test_page import findings, read


def test_the_figure_holds_every_checkpoint_and_what_is_said_of_it(tmp_path: Path) -> None:
    write_page(tmp_path / "report.html", findings())
    _, data = read(tmp_path / "report.html")
    marks = {trace["name"]: trace for trace in data["traces"] if trace["mode"] == "markers"}
    assert marks["dpo"]["x"] == [0.1, 0.2, 0.1, 0.2]
    assert marks["ppo"]["customdata"][1] == "ppo-s0, step 20"
    assert (
        marks["dpo"]["text"][1] == "dpo-s0, step 20<br>beta 0.5<br>KL 0.2 ± 0.02<br>reward 2 ± 0.2"
    )
    groups = {
        t["legendgroup"]: t["name"] for t in data["traces"] if t["mode"] == "lines" and "name" in t
    }
    assert groups == {"dpo": "dpo (1 seed)", "ppo": "ppo (1 seed)", "oracle": "oracle",
                      "reference": "reference"}  # fmt: skip
    assert marks["dpo"]["marker"]["color"] != marks["ppo"]["marker"]["color"]
    assert marks["dpo"]["marker"]["symbol"] != marks["ppo"]["marker"]["symbol"]
