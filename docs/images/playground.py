"""Draw the pictures of the playground: `python docs/images/playground.py RUN [OTHER]`.

Needs Chromium, and Playwright (`pip install playwright`). The demo's run gives the pictures beside
this file.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

FOLDER = Path(__file__).parent
TYPED = ("tent", "sleeping bag", "gas stove")


@contextmanager
def playground(folders: list[str]) -> Iterator[str]:
    """The address of a server that runs meanwhile."""
    command = [sys.executable, "-m", "sidtune", "play", *folders, "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8")
    try:
        assert server.stdout is not None
        yield next(line for line in server.stdout if line.startswith("Open ")).split()[1]
    finally:
        server.terminate()
        server.wait()


def add(page: Page, words: str) -> None:
    """Add the first item that a search finds."""
    page.keyboard.press("/")
    page.keyboard.type(words)
    page.wait_for_selector("#matches li[aria-selected=true]")
    with page.expect_response("**/api/recommend"):
        page.keyboard.press("Enter")


def main() -> None:
    """A light picture of lists and a path, and a dark one of a phone."""
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    with playground(sys.argv[1:]) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1240, "height": 880}, color_scheme="light")
        page.goto(address)
        for words in TYPED:
            add(page, words)
        page.locator(".why").nth(1).click()
        page.wait_for_selector(".branch.chosen")
        page.evaluate("document.activeElement.blur()")
        page.screenshot(path=FOLDER / "playground-light.png")
        phone = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
        phone.goto(page.url)
        phone.wait_for_selector(".card li")
        phone.locator(".why").first.click()
        phone.wait_for_selector(".branch.chosen")
        phone.locator(".card").first.evaluate("card => card.scrollIntoView()")
        phone.screenshot(path=FOLDER / "playground-phone.png")
        browser.close()


if __name__ == "__main__":
    main()
