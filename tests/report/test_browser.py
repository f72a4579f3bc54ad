"""The page in a browser: opened from disk without a network, hovered, toggled, clicked, tapped."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from alignlab.report.gather import key_of
from alignlab.report.page import write_page
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
    write_page(tmp_path / "report.html", findings(points=POINTS, samples=own))
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
    assert heard == [address]


def place(page: Page, kl: float, reward: float) -> tuple[float, float]:
    """Where a point of the figure is on the screen."""
    x, y = page.evaluate(
        """([kl, reward]) => {
            const chart = document.getElementById("chart"), all = chart._fullLayout;
            const box = chart.getBoundingClientRect();
            return [box.left + all._size.l + all.xaxis.d2p(kl),
                    box.top + all._size.t + all.yaxis.d2p(reward)];
        }""",
        [kl, reward],
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
    assert linear[1] - linear[0] == pytest.approx((linear[2] - linear[1]) / 2, abs=0.02)
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    page.wait_for_function("document.getElementById('chart')._fullLayout.xaxis.type == 'log'")
    log = [place(page, kl, 1.0)[0] for kl in (0.1, 0.2, 0.4)]
    assert log[1] - log[0] == pytest.approx(log[2] - log[1], abs=0.02)  # pixels
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


def test_nothing_sticks_out_of_the_page(page: Page) -> None:
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    chart = page.locator("#chart .main-svg").first.bounding_box()
    assert chart is not None
    assert page.viewport_size is not None
    assert chart["x"] + chart["width"] <= page.viewport_size["width"]
