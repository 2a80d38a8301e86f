"""A Chromium that is there, driven by Playwright, for the tests of pages."""

import contextlib
import shutil

from tests.absent import skip

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@contextlib.contextmanager
def chromium(sync_api):
    """Yield a browser; sync_api: the module playwright.sync_api. Without a Chromium the test is skipped."""
    if CHROMIUM is None:
        skip("there is no Chromium here: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()
