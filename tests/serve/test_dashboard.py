"""The page in a real browser: it shows the API's numbers, loads nothing from elsewhere, and can be used by everyone."""

import shutil

import httpx
import numpy as np
import pytest

from kronos_lightning.pipeline.loaded_model import load_model
from kronos_lightning.serve.evaluations import StoredForecasts, read_file
from tests.helpers.evaluated import HOURS, btc_hours, evaluated_at
from tests.helpers.service import listening, service_of

sync_api = pytest.importorskip("playwright.sync_api")
axe_core = pytest.importorskip("axe_playwright_python.sync_playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def address(checkpoint, tmp_path_factory):
    cwd = tmp_path_factory.mktemp("dashboard")
    model = load_model(checkpoint, "cpu")
    (cwd / "report").mkdir()
    sampled = evaluated_at(btc_hours(), np.array([150, 200, 250]), model.plain, model.decision)
    sampled.calibrated(model.calibration).save(cwd / "report")
    model.decision.save(cwd / "report")
    stored, candles = StoredForecasts.load(cwd / "report"), read_file(HOURS, model.decision)
    with listening(service_of(checkpoint, stored=stored, candles=candles)) as found:
        yield found


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(address, browser):
    """Open the page; every message on the console and every request to another host fails the test."""
    seen, contexts = [], []

    def open_page(**options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, "locale": "en-US"} | options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: seen.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: seen.append(str(error)))
        page.on("request", lambda request: None if request.url.startswith((address, "data:", "blob:")) else seen.append(request.url))  # fmt: skip # noqa: E501
        page.goto(address)
        page.wait_for_selector("#chart .main-svg")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert seen == []


def card(page, title):
    return page.locator(".card", has=page.locator("h3", has_text=title)).inner_text()


def test_the_page_shows_the_numbers_of_the_api(opened, address):
    page = opened()
    answer = httpx.post(f"{address}/v1/BTCUSDT/predict", json={}, timeout=60).json()
    assert f"{answer['predicted_price']:,.1f}" in card(page, "Predicted price")
    assert answer["signal"] in card(page, "Signal")
    assert f"{answer['confidence'] * 100:.1f}" in card(page, "Confidence")
    assert f"{answer['volatility'] * 100:.2f}" in card(page, "Expected volatility")
    assert "no edge" in page.locator("#verdict").inner_text()
    assert "RANDOM WEIGHTS" in page.locator("#notices").inner_text()
    assert page.locator("#table tbody tr").count() == 12
    assert page.locator("#light.ok").count() == 1


def test_the_slider_lays_a_past_forecast_over_what_came(opened, address):
    page = opened(color_scheme="dark")
    page.locator("#slider").focus()
    page.keyboard.press("Home")  # usable without a mouse
    page.wait_for_selector(".card:has-text('What came')")
    past = httpx.get(f"{address}/v1/evaluation/0", timeout=60).json()
    assert f"{past['actual'][-1]['close']:,.1f}".rstrip("0").rstrip(".") in card(page, "What came")
    assert "(1/3)" in page.locator("#when").inner_text()
    page.click("#later")
    page.wait_for_selector("#when:has-text('(2/3)')")
    page.click("#again")
    page.wait_for_selector(".card:has-text('First touched')")


def test_a_dropped_file_is_forecast(opened, tmp_path):
    page = opened()
    btc_hours().frame.iloc[:240].drop(columns="segment").to_csv(tmp_path / "DOGEUSDT_1h.csv", index=False)
    page.set_input_files("#file", tmp_path / "DOGEUSDT_1h.csv")
    page.wait_for_selector("#summary:has-text('DOGEUSDT')")
    assert "symbol DOGEUSDT instead of BTCUSDT" in page.locator("#notices").inner_text()
    assert "–" in card(page, "Confidence")
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    page.set_input_files("#file", tmp_path / "bad.csv")
    page.wait_for_selector(".notice:has-text('has no columns')")


@pytest.mark.parametrize(("scheme", "width", "locale"), [("light", 1280, "en-US"), ("dark", 360, "zh-CN")])
def test_everyone_can_use_the_page(scheme, width, locale, opened):
    page = opened(color_scheme=scheme, viewport={"width": width, "height": 800}, locale=locale)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    found = axe_core.Axe().run(page).response["violations"]
    assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []
    assert page.locator("h1").inner_text().strip() == ("Kronos 预测" if locale == "zh-CN" else "Kronos forecasts")
