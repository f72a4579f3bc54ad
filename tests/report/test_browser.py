"""The page in a browser: opened from disk without a network, hovered, toggled, clicked, tapped."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import pytest
from playwright.sync_api import Browser, Page, expect

from alignlab.report.gather import key_of
from alignlab.report.look import Look
from alignlab.report.page import write_page
from alignlab.results.progress import Progress
from tests.report.browser import chromium
from tests.report.test_page import findings, point, sample

pytestmark = pytest.mark.slow
POINTS = [
    point("dpo-s0", 10, kl=0.2, reward=1.2),
    point("dpo-s0", 20, kl=0.5, reward=1.4),
    point("ppo-s0", 20, kl=0.3, reward=1.6),
]
WIDE, PHONE = 1280, 390


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(params=[WIDE, PHONE])
def page(browser: Browser, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The report at a desktop's and a phone's width; whatever it asks for or complains of fails."""
    own = {
        key_of(POINTS[1]): [
            sample(prompt_id="p0", prompt="A film", completion="that <i>shines</i>", reward=1.5)
        ]
    }
    rows = [
        replace(r, oracle_efficiency=0.8, efficiency_lo=0.7, efficiency_hi=0.9)
        if r.objective in ("dpo", "ppo")
        else r
        for r in findings().rows
    ]
    look = Look(names={"ppo": "PPO <i>%{x}</i>"})
    live = Progress(pid=1, at="14:03:20", finished=3, total=12, left="about 02:10 left",
                    failed={"ppo-s1": "loss is <b>nan</b> " + 30 * "longword"})  # fmt: skip
    write_page(
        tmp_path / "report.html",
        findings(points=POINTS, samples=own, rows=rows, look=look, live=live),
    )
    phone = request.param == PHONE
    context = browser.new_context(
        viewport={"width": request.param, "height": 844}, offline=True, has_touch=phone
    )
    opened, heard = context.new_page(), list[str]()
    opened.on("console", lambda message: heard.append(message.text))
    opened.on("pageerror", lambda error: heard.append(str(error)))
    opened.on("request", lambda asked: heard.append(asked.url))
    address = (tmp_path / "report.html").as_uri()
    opened.goto(address)
    opened.wait_for_selector("#chart .legend")
    yield opened
    context.close()
    assert {asked.partition("#")[0] for asked in heard} == {address}  # once more after a reload


def place(page: Page, kl: float, reward: float) -> tuple[float, float]:
    """Where a point of the figure is on the screen."""
    x, y = page.evaluate(
        """([kl, reward]) => {
            const chart = document.getElementById("chart"), all = chart._fullLayout;
            chart.scrollIntoView({block: "center"});
            const box = chart.getBoundingClientRect();
            return [box.left + all._size.l + all.xaxis.d2p(kl),
                    box.top + all._size.t + all.yaxis.d2p(reward)];
        }""",
        [kl**0.5, reward],
    )
    return x, y


def test_hovering_says_what_a_mark_is(page: Page) -> None:
    page.mouse.move(*place(page, 0.3, 1.6))
    said = page.locator("#chart .hoverlayer .hovertext")
    expect(said).to_contain_text("ppo-s0, step 20")
    for line in ("beta 0.5", "KL 0.3 ± 0.02", "reward 1.6 ± 0.2"):
        expect(said).to_contain_text(line)


def test_a_name_in_the_legend_hides_and_shows_its_arm(page: Page) -> None:
    marks = page.locator("#chart .scatterlayer .points path.point")
    expect(marks).to_have_count(3)
    name = page.locator("#chart .legendtoggle").first  # dpo's
    name.click()
    expect(marks).to_have_count(1)
    page.wait_for_timeout(400)  # two clicks at once would be a double click
    name.click()
    expect(marks).to_have_count(3)


def test_a_button_makes_the_axis_logarithmic_and_back(page: Page) -> None:
    button = page.get_by_role("button", name="KL on a logarithmic axis")
    linear = [place(page, kl, 1.0)[0] for kl in (0.1, 0.2, 0.4)]
    roots = [place(page, kl, 1.0)[0] for kl in (0.0, 0.25, 1.0)]
    assert roots[1] - roots[0] == pytest.approx(roots[2] - roots[1], abs=0.02)
    ticks = page.locator("#chart .xtick text")
    assert ticks.all_text_contents() == ["0", "0.25", "0.5", "1"]
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    page.wait_for_function("document.getElementById('chart')._fullLayout.xaxis.type == 'log'")
    log = [place(page, kl, 1.0)[0] for kl in (0.1, 0.2, 0.4)]
    assert log[1] - log[0] == pytest.approx(log[2] - log[1], abs=0.02)  # pixels
    assert {"0.3", "1"} <= {*ticks.all_text_contents()}
    button.click()
    page.wait_for_function("document.getElementById('chart')._fullLayout.xaxis.type == 'linear'")
    assert [place(page, kl, 1.0)[0] for kl in (0.1, 0.2, 0.4)] == pytest.approx(linear, abs=0.02)


def test_a_mark_shows_what_its_policy_writes_beside_the_reference(page: Page) -> None:
    at = place(page, 0.5, 1.4)
    if page.viewport_size == {"width": PHONE, "height": 844}:
        page.touchscreen.tap(*at)
    else:
        page.mouse.move(*at)
        page.mouse.click(*at)
    panel = page.locator("#samples")
    expect(panel).to_contain_text("What dpo-s0, step 20 writes")
    for words in ("A film", "policy, reward 1.5", "that <i>shines</i>", "reference, reward -0.5"):
        expect(panel).to_contain_text(words)


def test_the_table_of_runs_leads_to_the_same_texts_by_keyboard(page: Page) -> None:
    button = page.get_by_role("button", name="read")
    button.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#samples")).to_contain_text("that <i>shines</i>")


def test_tables_are_named_for_screen_readers_and_scroll_by_keyboard(page: Page) -> None:
    table = page.get_by_role("region", name="After the last step, with 95 % intervals.")
    table.focus()
    expect(table).to_be_focused()
    expect(table.get_by_role("cell", name="1.6 ± 0.2")).to_be_visible()


def test_a_button_shows_the_share_of_the_gain(page: Page) -> None:
    marks = page.locator("#chart .scatterlayer .points path.point")
    page.get_by_role("button", name="Share of the optimum's gain").click()
    expect(marks).to_have_count(0)
    expect(page.locator("#chart .ytitle")).to_have_text("share of the optimum's gain")
    name = page.locator("#chart .legendtext").nth(1)
    expect(name).to_have_text("PPO <i>%{x}</i> (1 seed)")


def kept(page: Page) -> list[str]:
    """The runs whose lines are not faded."""
    return page.evaluate(
        """[...document.querySelectorAll("#parallel .run:not(.out) title")]
            .map((title) => title.textContent.split(",")[0])"""
    )


def test_axes_are_brushed_by_keyboard_and_the_figure_follows(page: Page) -> None:
    assert kept(page) == ["dpo-s0", "ppo-s0"]
    lowest = page.get_by_role("slider", name="lowest reward")
    lowest.focus()
    expect(lowest).to_have_attribute("aria-valuetext", "1.4")
    page.keyboard.press("ArrowUp")
    expect(lowest).to_have_attribute("aria-valuetext", "1.6")
    assert kept(page) == ["ppo-s0"]
    expect(page.locator("#brushed")).to_have_text("1 of 2 runs: ppo-s0")
    faded = page.evaluate("document.getElementById('chart').data.map((t) => t.selectedpoints)")
    assert [own for own in faded if own is not None] == [[], [0]]
    page.keyboard.press("Escape")
    expect(page.locator("#brushed")).to_have_text("All 2 runs")
    assert kept(page) == ["dpo-s0", "ppo-s0"]


def test_an_axis_is_brushed_by_dragging_and_cleared_by_a_click(page: Page) -> None:
    axis = page.locator("#parallel .hit").last  # reward
    axis.scroll_into_view_if_needed()
    box = axis.bounding_box()
    assert box is not None
    x, bottom = box["x"] + box["width"] - 5, box["y"] + box["height"] - 4  # beside the handles
    drag(page, x, bottom, bottom - 60)
    assert kept(page) == ["dpo-s0"]
    page.mouse.click(x, bottom - 100)
    assert kept(page) == ["dpo-s0", "ppo-s0"]
    handle = page.get_by_role("slider", name="lowest reward").bounding_box()
    assert handle is not None
    drag(page, handle["x"] + 5, handle["y"] + 3, handle["y"] - 60)
    assert kept(page) == ["ppo-s0"]


def drag(page: Page, x: float, begin: float, end: float) -> None:
    page.mouse.move(x, begin)
    page.mouse.down()
    page.mouse.move(x, end, steps=4)
    page.mouse.up()


def test_a_line_leads_to_what_its_run_writes(page: Page) -> None:
    line = page.locator("#parallel .run").first
    line.dispatch_event("click")
    expect(page.locator("#samples")).to_contain_text("that <i>shines</i>")


def test_a_page_of_runs_at_work_reloads_and_stays_as_it_was(page: Page) -> None:
    live = page.get_by_role("region", name="Runs at work")
    expect(live).to_contain_text("3 of 12 jobs done, about 02:10 left")
    expect(live).to_contain_text("ppo-s1: loss is <b>nan</b>")
    page.get_by_role("button", name="KL on a logarithmic axis").click()
    page.locator("#chart .legendtoggle").first.click()  # dpo's
    hidden = re.compile("%22hidden%22%3A%5B%22dpo%22%5D")
    expect(page).to_have_url(hidden)  # a single click in the legend waits for a second one
    page.get_by_role("button", name="read").click()
    page.get_by_role("slider", name="highest KL").focus()
    page.keyboard.press("ArrowDown")
    before = page.url
    assert hidden.search(before)
    path = Path(unquote(before.removeprefix("file://").partition("#")[0]))
    path.write_text(
        path.read_text()
        .replace("3 of 12", "4 of 12")
        .replace('data-seconds="15"', 'data-seconds="5"')
    )
    page.reload()
    expect(live).to_contain_text("4 of 12 jobs done")
    path.write_text(path.read_text().replace("4 of 12", "5 of 12"))
    expect(live).to_contain_text("5 of 12 jobs done", timeout=30_000)  # by itself
    pause = page.get_by_role("button", name="Pause")
    pause.click()
    expect(pause).to_have_attribute("aria-pressed", "true")
    assert page.url.replace("true%2C%22key", "false%2C%22key") == before  # but for the pause
    expect(page.get_by_role("button", name="KL on a logarithmic axis")).to_have_attribute(
        "aria-pressed", "true"
    )
    expect(page.locator("#samples")).to_contain_text("that <i>shines</i>")
    assert kept(page) == ["ppo-s0"]
    expect(page.locator("#chart .scatterlayer .points path.point")).to_have_count(1)
    path.write_text(path.read_text().replace("5 of 12", "6 of 12"))
    page.wait_for_timeout(6000)
    expect(live).to_contain_text("5 of 12 jobs done")


def test_completions_stand_beside_the_figure_where_there_is_room(page: Page) -> None:
    chart, panel = (page.locator(name).bounding_box() for name in ("#chart", "#samples"))
    assert chart is not None
    assert panel is not None
    if page.viewport_size == {"width": PHONE, "height": 844}:
        assert panel["y"] >= chart["y"] + chart["height"]
    else:
        assert panel["x"] >= chart["x"] + chart["width"]
        assert chart["width"] / chart["height"] == pytest.approx(4 / 3, rel=0.01)


def test_nothing_sticks_out_of_the_page(page: Page) -> None:
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    chart = page.locator("#chart .main-svg").first.bounding_box()
    assert chart is not None
    assert page.viewport_size is not None
    assert chart["x"] + chart["width"] <= page.viewport_size["width"]
