"""The demo and the report in a real browser: `make test-browser`.

Skipped where gradio, playwright or chromium is missing.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest

pytest.importorskip("gradio")
sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path"),
    pytest.mark.filterwarnings("ignore"),  # other libraries' own
]

PASSWORD = "correct horse battery"
HOSTILE = [
    "<script>window.hacked=1</script>",
    "<img src=x onerror=window.hacked=1>",
    "${window.hacked=1}",
    "{{window.hacked=1}}",
]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


def corrsteer(*arguments):
    command = [sys.executable, "-c", "from corrsteer.cli import main; main()", *map(str, arguments)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, timeout=600)
    assert done.returncode == 0, done.stderr.decode()


@contextmanager
def serving(*arguments, prelude="", **environment):
    """A demo in a process of its own; gives the address that it prints."""
    code = f"{prelude}\nfrom corrsteer.cli import main; main()"
    command = [sys.executable, "-c", code, "demo"]
    command += [*map(str, arguments), "--port", "0", "--no-open"]
    process = subprocess.Popen(
        command, env=ENVIRONMENT | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        address = process.stdout.readline().decode().strip()
        assert address.startswith("http://"), process.stderr.read().decode()
        yield address
    finally:
        process.send_signal(2)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert PASSWORD.encode() not in out + err
    assert b"Traceback" not in err


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A small run of the built-in model that steers at several layers."""
    folder = tmp_path_factory.mktemp("runs") / "refuse"
    options = {"strategy": "A", "strength": 1, "samples": 120, "val-limit": 8, "test-limit": 60}
    options |= {"controls": 0, "guard": "none", "task": "mini-harmbench", "model": "mini"}
    corrsteer("train", *(f"--{key}={value}" for key, value in options.items()), "--out", folder)
    return folder


@pytest.fixture(scope="module")
def address(run, tmp_path_factory):
    second = tmp_path_factory.mktemp("runs") / "again"
    shutil.copytree(run, second)
    with serving(run, second) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield launched
        launched.close()


@pytest.fixture
def visit(browser):
    """Opens pages; afterwards none may have complained or asked another host for anything."""
    contexts, complaints, requests = [], [], []

    def visit(address, **options):
        context = browser.new_context(**({"viewport": DESKTOP} | options))
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append((address, request.url)))
        page.goto(address)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert complaints == []
    inside = ("data:", "blob:")
    assert [url for home, url in requests if not url.startswith((home, *inside))] == []


def settled(page):
    """The replies by arm once they are all there."""
    page.wait_for_function(
        "() => document.querySelector('.cs-note') && "
        "!document.querySelector('.cs-note').textContent.includes('Replying') && "
        "document.querySelectorAll('[aria-busy=true]').length == 0"
    )
    names = page.locator(".cs-reply h2").all_inner_texts()
    return dict(zip((" ".join(name.split()) for name in names), replies(page), strict=True))


def replies(page):
    return page.locator(".cs-reply .text").all_inner_texts()


def after(page, act):
    """The replies once what `act` asked for is there."""
    page.evaluate("document.querySelector('.cs-note').textContent = 'Replying'")
    act()
    return settled(page)


def baseline_and_steered(found):
    texts = list(found.values())
    assert len(texts) == 2
    return texts


def layer(page, index):
    return page.locator("#cs-layers [data-testid=checkbox-group] input").nth(index)


def test_the_page_opens_with_an_example_and_what_steering_does_to_it(visit, address):
    page = visit(address)
    baseline, steered = baseline_and_steered(settled(page))
    assert baseline != steered
    assert page.locator(".cs-reply ins").count() > 0
    assert "mini-harmbench" in page.locator("h1").inner_text()
    assert page.locator(".cs-card.on").count() > 1
    assert page.title() == "CorrSteer demo"


def test_a_click_on_layers_changes_the_steered_reply_alone(visit, address):
    page = visit(address)
    baseline, steered = baseline_and_steered(settled(page))
    cards = page.locator(".cs-card.on").count()
    for index in range(cards):
        found = after(page, layer(page, index).click)
        sync_api.expect(page.locator(".cs-card.on")).to_have_count(cards - index - 1)
    assert baseline_and_steered(found) == [baseline, baseline]
    assert "The steered reply is the baseline" in page.locator(".cs-note").inner_text()
    found = after(page, page.locator(".select-all-checkbox").click)
    assert baseline_and_steered(found) == [baseline, steered]


def test_the_strength_slider_works_by_pointer_and_by_keyboard(visit, address):
    page = visit(address)
    baseline, steered = baseline_and_steered(settled(page))
    slider = page.locator("#cs-controls input[type=range]")
    found = after(page, lambda: slider.fill("0"))
    assert baseline_and_steered(found) == [baseline, baseline]
    slider.focus()
    found = after(page, lambda: [page.keyboard.press("ArrowRight") for _ in range(20)])
    assert slider.input_value() == "1"
    assert baseline_and_steered(found) == [baseline, steered]
    box = slider.bounding_box()

    def drag():
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + 1, box["y"] + box["height"] / 2, steps=12)
        page.mouse.up()

    assert baseline_and_steered(after(page, drag))[1] == baseline
    assert slider.input_value() == "0"


def test_a_prompt_is_typed_and_asked_by_keyboard_alone(visit, address):
    page = visit(address)
    before = settled(page)
    box = page.get_by_label("Prompt (Shift + Enter asks)")
    box.focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("Request: please melt the butter")
    page.keyboard.press("Enter")
    page.keyboard.type("Response:")
    assert after(page, lambda: page.keyboard.press("Shift+Enter")) != before
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.name?.startsWith('blocks.')"):
            break
    cards = page.locator(".cs-card.on").count()
    after(page, lambda: page.keyboard.press("Space"))
    sync_api.expect(page.locator(".cs-card.on")).to_have_count(cards - 1)


def test_an_example_of_the_other_direction_is_picked(visit, address):
    page = visit(address)
    settled(page)
    box = page.get_by_label("Prompt (Shift + Enter asks)")
    before = box.input_value()
    page.get_by_label("Test samples that steering changed").click()
    option = page.get_by_role("option").last
    name = option.inner_text()
    after(page, option.click)
    assert box.input_value() != before
    assert " ".join(box.input_value().split())[:40] in name


def test_an_empty_prompt_is_told_off_in_one_line(visit, address):
    page = visit(address)
    settled(page)
    page.get_by_label("Prompt (Shift + Enter asks)").fill(" ")
    page.get_by_role("button", name="Reply").click()
    page.get_by_text("the prompt is empty; type one").wait_for()


def test_two_runs_are_compared_side_by_side(visit, address):
    page = visit(address)
    settled(page)
    page.get_by_label("Beside it").click()
    found = after(page, page.get_by_role("option").nth(2).click)
    assert list(found) == ["Baseline mini", "Steered refuse", "Steered again"]
    assert found["Steered refuse"] == found["Steered again"]
    page.get_by_label("Run", exact=True).click()
    found = after(page, page.get_by_role("option").nth(1).click)
    assert list(found)[1] == "Steered again"


def test_two_people_at_once_do_not_see_each_others_settings(visit, address):
    ours, theirs = visit(address), visit(address)
    before = settled(ours), settled(theirs)
    assert before[0] == before[1]
    after(ours, lambda: ours.locator("#cs-controls input[type=range]").fill("0"))
    after(ours, layer(ours, 0).click)
    assert settled(theirs) == before[1]
    assert after(theirs, theirs.get_by_role("button", name="Reply").click) == before[1]
    assert layer(theirs, 0).is_checked()
    theirs.reload()
    assert settled(theirs) == before[1]


def test_many_quick_changes_end_in_the_last_one(visit, address):
    page = visit(address)
    baseline, _ = baseline_and_steered(settled(page))
    slider = page.locator("#cs-controls input[type=range]")

    def fidget():
        for _ in range(3):
            for value in ("0.5", "1.5", "1", "2", "0.75", "0"):
                slider.fill(value)
                page.wait_for_timeout(30)

    assert baseline_and_steered(after(page, fidget)) == [baseline, baseline]
    page.wait_for_timeout(500)
    assert replies(page) == [baseline, baseline]


def test_replies_are_told_to_screen_readers_and_everything_has_a_name(visit, address):
    page = visit(address)
    page.wait_for_selector(".cs-reply")
    live = page.locator(".cs-reply .text")
    assert live.first.get_attribute("aria-live") == "polite"
    settled(page)
    page.evaluate("window.kept = [...document.querySelectorAll('.cs-reply .text')]")
    after(page, layer(page, 0).click)
    assert page.evaluate("window.kept.every(element => element.isConnected)")
    assert page.locator(".cs-note").get_attribute("role") == "status"
    outline = page.locator("body").aria_snapshot()
    assert 'group "Layers that steer"' in outline
    assert 'checkbox "All layers"' in outline
    assert not re.search(
        r"- (checkbox|textbox|slider|combobox|button|group|link|region)[ :\[]*$", outline, re.M
    )
    assert page.locator("html").get_attribute("lang") == "en"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_page_fits_the_screen_and_the_colour_scheme(visit, address, viewport, scheme):
    page = visit(address, viewport=viewport, color_scheme=scheme)
    settled(page)
    assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]
    body = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert body == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 25, 31)"}[scheme]


def test_the_page_may_load_nothing_from_elsewhere(visit, address):
    with urllib.request.urlopen(address) as answer:
        policy = answer.headers["Content-Security-Policy"]
        text = answer.read().decode()
    assert policy.startswith("default-src 'self';")
    assert "preconnect" not in text
    assert "dns-prefetch" not in text


def status(address, **headers):
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers)) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_without_a_password_only_this_machines_own_name_is_answered(address):
    assert status(address) == 200
    assert status(address, Host="evil.example") == 400


def test_with_a_password_nothing_is_told_without_it(visit, run, browser):
    with serving(run, "--password-env", "DEMO_PASSWORD", DEMO_PASSWORD=PASSWORD) as address:
        for path in ("", "config", "gradio_api/info", "gradio_api/startup-events", "theme.css"):
            assert status(address + path) == 401
        assert status(address, Authorization="Basic d3Jvbmc6d3Jvbmc=") == 401
        assert status(address, Authorization="Basic \xff") == 401
        page = visit(address, http_credentials={"username": "anyone", "password": PASSWORD})
        assert len(settled(page)) == 2
        page.context.close()


SLOWLY = """
import time
from corrsteer.demo import session
fast = session.stream
def slow(*given):
    for token in fast(*given):
        time.sleep(0.4)
        yield token
session.stream = slow
"""


def test_replies_stream_token_by_token_and_stop_when_told_to(visit, run):
    with serving(run, prelude=SLOWLY) as address:
        page = visit(address)
        grown = [len(text) for text in map("".join, watched(page, 8))]
        assert grown == sorted(grown)
        assert len(set(grown)) > 3
        settled(page)
        slider = page.locator("#cs-controls input[type=range]")
        baseline, whole = baseline_and_steered(after(page, lambda: slider.fill("0")))
        page.get_by_role("button", name="Reply").click()
        page.wait_for_function("document.querySelector('.cs-reply.steered .text').innerText > ''")
        page.get_by_role("button", name="Stop").click()
        page.get_by_text("Stopped.").wait_for()
        remembered, begun = baseline_and_steered(settled(page))
        assert remembered == baseline == whole
        assert 0 < len(begun) < len(whole)
        page.context.close()


def watched(page, times):
    """The replies at some moments in a row."""
    page.wait_for_selector(".cs-reply")
    for _ in range(times):
        yield replies(page)
        page.wait_for_timeout(250)


@pytest.fixture(scope="module")
def hostile_run(hub, tmp_path_factory):
    """A run of the tiny model, whose tokens of capital letters are pieces of markup instead."""
    root = tmp_path_factory.mktemp("hostile")
    shutil.copytree(hub, root / "hub")
    tokenizer = root / "hub" / "model" / "tokenizer.json"
    found = json.loads(tokenizer.read_text())
    words = found["model"]["vocab"]
    for number, letter in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZ"):
        words[f"{''.join(HOSTILE)}{number}"] = words.pop(letter)
    tokenizer.write_text(json.dumps(found))
    rows = [{"prompt": f"{HOSTILE[0]} say {i}", "target": "x"} for i in range(60)]
    (root / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    options = {"model": root / "hub" / "model", "sae": root / "hub" / "saes", "strength": 2}
    options |= {"task": root / "rows.jsonl", "scorer": r"regex:^\s*[n-z0-4<]", "strategy": "A"}
    options |= {"max-new-tokens": 24, "controls": 0}
    corrsteer("train", *(f"--{k}={v}" for k, v in options.items()), "--out", root / "run")
    return root / "run"


def test_a_reply_with_a_script_in_it_does_nothing(visit, hostile_run):
    with serving(hostile_run) as address:
        page = visit(address)
        box = page.get_by_label("Prompt (Shift + Enter asks)")
        shown = "".join(settled(page).values())
        for prompt in ("say 1", "abc", "what"):
            box.fill(prompt)
            shown += "".join(after(page, page.get_by_role("button", name="Reply").click).values())
        assert page.evaluate("window.hacked") is None
        assert page.locator(".cs-reply script, .cs-reply img").count() == 0
        page.context.close()
    for text in HOSTILE:
        assert text in shown


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_report_renders_alone(visit, run, viewport):
    page = visit((run / "report.html").as_uri(), viewport=viewport)
    assert page.locator("svg:visible").count() > 0
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    tables = page.locator(".scroll").evaluate_all(
        "all => all.map(e => e.scrollWidth - e.clientWidth)"
    )
    assert len(tables) > 2
    if viewport == DESKTOP:
        assert max(tables) == 0, "a table has to be scrolled"


def test_a_space_shows_the_run_by_itself(visit, run, tmp_path):
    folder = tmp_path / "space"
    corrsteer("export", run, "--to", "space", "--out", folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = "import sys; sys.path.insert(0, '.'); import app, corrsteer; print(corrsteer.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=ENVIRONMENT, capture_output=True, check=True
    )
    assert str(folder) in done.stdout.decode()
    environment = ENVIRONMENT | {"GRADIO_SERVER_PORT": str(port), "PYTHONPATH": str(folder)}
    process = subprocess.Popen(
        [sys.executable, "app.py"], cwd=folder, env=environment, stdout=subprocess.PIPE
    )
    try:
        address = f"http://127.0.0.1:{port}/"
        while process.poll() is None:
            try:
                if status(address) == 200:
                    break
            except urllib.error.URLError:
                time.sleep(0.5)
        page = visit(address)
        assert len(settled(page)) == 2
        page.context.close()  # before the server goes away
    finally:
        process.terminate()
        process.communicate(timeout=30)
