"""Draw the pictures of this folder: `python docs/images/screenshots.py RUN [OTHER]`.

The report of a run, light, dark and on a phone; the playground with one or two models; and what a
terminal shows of training, drawn again from the run's log. Needs Chromium, and Playwright
(`pip install playwright`). The demo's run gives the pictures beside this file.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import yaml
from playwright.sync_api import Browser, Page, sync_playwright
from rich.console import Console

from sidtune.evaluation.results import read_report
from sidtune.evaluation.tables import metrics_table
from sidtune.training.display import callbacks, live
from sidtune.training.display.time_left import TimeLeft

FOLDER = Path(__file__).parent
TYPED = ("tent", "sleeping bag", "gas stove")
COLUMNS = 80
# Pixels of a picture for each of the page.
SHARPNESS = 1.5
# Of the training that the terminal shows, the part that is done.
DONE = 0.7


@contextmanager
def playground(folders: list[Path]) -> Iterator[str]:
    """The address of a server that runs meanwhile."""
    command = [sys.executable, "-m", "sidtune", "play", *map(str, folders), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8")
    try:
        assert server.stdout is not None
        yield next(line for line in server.stdout if line.startswith("Open ")).split()[1]
    finally:
        server.terminate()
        server.wait()


def save(page: Page, name: str) -> None:
    """What the page shows, as WebP, which is a third of PNG."""
    session, size = page.context.new_cdp_session(page), page.viewport_size
    clip = {"x": 0, "y": page.evaluate("scrollY"), "scale": SHARPNESS, **(size or {})}
    options = {"format": "webp", "quality": 80, "clip": clip}
    taken = session.send("Page.captureScreenshot", options)
    (FOLDER / f"{name}.webp").write_bytes(base64.b64decode(taken["data"]))


def opened(
    browser: Browser, width: int, height: int, scheme: Literal["light", "dark"], address: str
) -> Page:
    """A page of a size."""
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    page.goto(address)
    return page


def add(page: Page, words: str) -> None:
    """Add the first item that a search finds."""
    page.keyboard.press("/")
    page.keyboard.type(words)
    page.wait_for_selector("#matches li[aria-selected=true]")
    with page.expect_response("**/api/recommend"):
        page.keyboard.press("Enter")


def draw_playground(browser: Browser, address: str) -> None:
    """A light picture of lists and a path, and a dark one of a phone."""
    page = opened(browser, 1240, 800, "light", address)
    for words in TYPED:
        add(page, words)
    page.locator(".why").nth(1).click()
    page.wait_for_selector(".branch.chosen")
    page.evaluate("document.activeElement.blur()")
    save(page, "playground-light")
    phone = opened(browser, 390, 844, "dark", page.url)
    phone.wait_for_selector(".card li")
    phone.locator(".why").first.click()
    phone.wait_for_selector(".branch.chosen")
    phone.locator(".card").first.evaluate("card => card.scrollIntoView()")
    save(phone, "playground-phone")


def draw_report(browser: Browser, run: Path) -> None:
    """The beginning of the report, light, dark and on a phone."""
    address = (run / "report.html").absolute().as_uri()
    pages = (("light", 1240, 900), ("dark", 1240, 900), ("phone", 390, 844))
    for name, width, height in pages:
        scheme: Literal["light", "dark"] = "dark" if name == "dark" else "light"
        page = opened(browser, width, height, scheme, address)
        page.wait_for_selector(".chart svg, svg.marks")
        page.locator("h2").nth(1).evaluate("heading => heading.scrollIntoView()")
        page.wait_for_timeout(500)
        save(page, f"report-{name}")


def draw_terminal(run: Path) -> None:
    """Rows of evaluations and the live view within a training, and the table at the end."""
    console = Console(width=COLUMNS, record=True, highlight=False, force_terminal=True)
    callbacks.console = live.console = console  # type: ignore[assignment]
    report = read_report(run / "evaluation" / "test.json")
    plan = json.loads((run / "plan.json").read_text(encoding="utf-8"))
    entries = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    plan["batch_size"] = config["training"]["batch_size"]
    console.print("[bold]$[/bold] sidtune run shop.yaml")
    view = replayed([entry for entry in entries if entry["step"] <= DONE * plan["steps"]], plan)
    console.print(view.render())
    console.print()
    assert report is not None
    console.print(metrics_table(report))
    picture = console.export_svg(title="sidtune run")
    # Fonts would be loaded from elsewhere.
    picture = re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)
    (FOLDER / "terminal.svg").write_text(picture, encoding="utf-8")


def replayed(entries: list[dict[str, Any]], plan: dict[str, Any]) -> live.LiveView:
    """The live view after these entries of the log; the rows of evaluations are printed."""
    tasks = list(plan["tasks"])
    arguments: Any = SimpleNamespace(
        metric_for_best_model=f"eval_{tasks[0]}_loss", greater_is_better=False
    )
    state: Any = SimpleNamespace(
        is_world_process_zero=True,
        global_step=0,
        max_steps=plan["steps"],
        epoch=0.0,
        best_metric=None,
        best_global_step=0,
        log_history=[],
    )
    control: Any = None
    time_left = TimeLeft()
    table, view = callbacks.ConsoleTable(tasks, []), live.LiveView(time_left)
    view.live = SimpleNamespace(start=lambda: None, stop=lambda: None)  # type: ignore[assignment]
    table.on_train_begin(arguments, state, control)
    view.on_train_begin(arguments, state, control)
    for entry in entries:
        if "examples_per_second" in entry:
            each = plan["batch_size"] / entry["examples_per_second"]
            time_left.seconds = (plan["steps"] - entry["step"]) * each
        state.global_step, state.epoch = entry["step"], entry.get("epoch", 0.0)
        for callback in (table, view):
            callback.on_log(arguments, state, control, entry)
        view.on_step_end(arguments, state, control)
        if f"eval_{tasks[0]}_loss" in entry:
            for callback in (table, view):
                callback.on_evaluate(arguments, state, control, entry)
    return view


def main() -> None:
    """All pictures."""
    folders = [Path(name) for name in sys.argv[1:]]
    draw_terminal(folders[0])
    path = shutil.which("chromium") or shutil.which("google-chrome")
    with playground(folders) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        draw_report(browser, folders[0])
        draw_playground(browser, address)
        browser.close()


if __name__ == "__main__":
    main()
