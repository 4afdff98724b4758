"""A headless Chromium that opens pages of this machine, as a person would use it: keys, clicks, sizes of the window."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

PHONE, DESK = (360, 740), (1280, 900)


def _program() -> str | None:
    return shutil.which("chromium") or shutil.which("google-chrome")


def is_installed() -> bool:
    """Whether there is a Chromium, and the driver that it is steered by."""
    return _program() is not None and shutil.which("chromedriver") is not None


class Chromium:
    """A window with one page."""

    def __init__(self) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = str(_program())
        # As root, in a container with a small /dev/shm, Chromium starts with these alone.
        for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))

    def open(self, page: Path, size: tuple[int, int] = DESK, scheme: str = "light") -> None:
        """Open a page anew, in a window of (width, height) CSS pixels, in the light or dark scheme."""
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size == PHONE}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.driver.get(page.as_uri())

    def complaints(self) -> list[str]:
        """What the console has said since the last call: blocked scripts, exceptions, files that were not loaded."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def run(self, script: str, *arguments: Any) -> Any:
        """The value of a script's `return`."""
        return self.driver.execute_script(script, *arguments)

    def all(self, selector: str) -> list[WebElement]:
        """The elements of a selector that are seen."""
        return [found for found in self.driver.find_elements(By.CSS_SELECTOR, selector) if found.is_displayed()]

    def one(self, selector: str) -> WebElement:
        """The only element of a selector that is seen."""
        (found,) = self.all(selector)
        return found

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds, for what the page does in its own time; half a minute at most."""
        WebDriverWait(self.driver, 30, 0.02).until(lambda _: holds())

    def choose(self, menu: str, option: str) -> None:
        """Choose an option of a menu by its text."""
        Select(self.one(menu)).select_by_visible_text(option)

    def press(self, *keys: str) -> None:
        """Press keys one after the other, wherever the focus is."""
        for key in keys:
            self.driver.switch_to.active_element.send_keys(key)

    def picture(self) -> bytes:
        """A PNG of the window."""
        return self.driver.get_screenshot_as_png()


@contextmanager
def chromium() -> Iterator[Chromium]:
    opened = Chromium()
    try:
        yield opened
    finally:
        opened.driver.quit()
