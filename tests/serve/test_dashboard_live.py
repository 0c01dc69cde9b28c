"""The page in a real browser while a replay runs: it follows, turns red when the feed stops, and recovers."""

import shutil

import httpx
import pytest

from kronos_lightning.pipeline.loaded_model import load_model
from kronos_lightning.serve import live_view
from kronos_lightning.serve.live_view import LiveView
from tests.helpers.live import SYMBOL, follow, hours, live_settings, operation_of
from tests.helpers.service import listening, service_of

sync_api = pytest.importorskip("playwright.sync_api")
axe_core = pytest.importorskip("axe_playwright_python.sync_playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
CLOSES = 14


@pytest.fixture(scope="module")
def folder(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("followed")
    follow(folder, load_model(checkpoint, "cpu"), {SYMBOL: hours(CLOSES)}).close()
    return folder


@pytest.fixture
def page(checkpoint, folder, monkeypatch):
    """The page of a service on the record; every message on the console fails the test, except of red answers."""
    monkeypatch.setattr(live_view, "SILENT", 0.5)
    seen = []
    service = service_of(checkpoint, live=LiveView(live_settings(folder), "1h"))
    with listening(service) as address, sync_api.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-US").new_page()
        page.on("pageerror", lambda error: seen.append(str(error)))
        page.on("console", lambda one: seen.append(one.text) if one.type == "error" and "409" not in one.text else None)
        page.goto(address)
        page.wait_for_selector("#paper-chart .main-svg")
        page.address = address
        yield page
        service.stopping = True
        browser.close()
    assert seen == []


def newest(page):
    return httpx.get(f"{page.address}/v1/{SYMBOL}/state").json()["newest"][:16].replace("T", " ")


def test_the_page_shows_the_record_and_a_slider_over_it(page):
    answer = httpx.get(f"{page.address}/v1/{SYMBOL}/latest").json()
    assert f"{answer['predicted_price']:,.1f}" in page.locator("#cards").inner_text()
    assert newest(page) in page.locator("#when").inner_text()
    assert "too few forecasts yet" in page.locator("#track-table").inner_text()
    assert "account" in page.locator("#paper-words").inner_text()
    page.locator("#slider").focus()
    page.keyboard.press("Home")
    page.wait_for_selector(".card:has-text('What came')")
    page.click("#language")
    page.wait_for_selector("h2:has-text('模拟账户')")
    found = axe_core.Axe().run(page).response["violations"]
    assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []
    page.set_viewport_size({"width": 360, "height": 800})
    page.wait_for_function("() => document.documentElement.scrollWidth <= 360")


def test_the_page_follows_a_replay_turns_red_when_it_stops_and_recovers(checkpoint, folder, page):
    model = load_model(checkpoint, "cpu")
    for closes in (CLOSES + 4, CLOSES + 8):
        operation = operation_of(folder, model, {SYMBOL: hours(closes)}, speed=1.0)
        operation.start()
        before = newest(page)
        page.wait_for_function("text => !document.querySelector('#when').textContent.startsWith(text)", arg=before)
        page.wait_for_selector("#stale", state="hidden")
        page.wait_for_selector("#light.ok")
        operation.wait()  # the candles have ended
        operation.close()
        page.wait_for_selector("#stale:has-text('STALE')", timeout=20_000)
        page.wait_for_selector("#light.bad")
        page.wait_for_selector(f"#when:has-text('{newest(page)}')")
