"""The live page as people meet it, in Chromium.

Skipped unless both are there: a `chromium` on the PATH (Debian's package of that name, or `chromium-headless-shell`),
and Playwright's Python package (`pip install playwright`). Two variables ask for more: `AXE` names the file
`axe.min.js` of npm's package `axe-core`; `SCREENSHOTS` names a folder, such as docs/images, for the docs' picture.
"""

import asyncio
import json
import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import pytest_asyncio

from tests.support.stack import Stack, free_port

playwright = pytest.importorskip("playwright.async_api", reason="needs Playwright: pip install playwright")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-headless-shell"))), None)
AXE = Path(os.environ["AXE"]).read_text() if os.environ.get("AXE") else ""
SCREENSHOTS = os.environ.get("SCREENSHOTS", "")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium-headless-shell")

ADMIN = "admin-0123456789abcdef"
WITHIN = 20_000
"""Milliseconds that the page may take on a loaded machine."""

LOOKS = {
    "light": {"color_scheme": "light", "viewport": {"width": 1200, "height": 900}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1200, "height": 900}},
    "phone": {"color_scheme": "light", "viewport": {"width": 360, "height": 740}},
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def watched(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A stack that is looked at, and whose MongoDB is frozen."""
    stack = Stack(tmp_path_factory.mktemp("watched"))
    try:
        await stack.start()
        yield stack
    finally:
        await stack.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def chromium() -> AsyncIterator[Any]:
    """The browser."""
    async with playwright.async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        await browser.close()


@asynccontextmanager
async def page_of(chromium: Any, url: str, look: str = "light") -> AsyncIterator[Any]:
    """The page as it looks; nothing it says on the console is an error, and no request leaves this machine."""
    context = await chromium.new_context(**LOOKS[look])
    page = await context.new_page()
    requests: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: complaints.extend([message.text] if message.type == "error" else []))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    try:
        await page.goto(url)
        yield page
        assert [request for request in requests if not request.startswith((f"{url}/", "data:"))] == []
        assert [text for text in complaints if "status of 40" not in text] == []  # tokens that don't do
    finally:
        await context.close()


async def says(page: Any, text: str) -> None:
    """Wait until the sentence holds this."""
    await playwright.expect(page.locator("#sentence")).to_contain_text(text, timeout=WITHIN)


async def write(page: Any, document_id: str) -> None:
    """Write a document by the form, by keyboard alone."""
    await page.locator("#write-mapping").select_option("notes")
    await page.locator("#write-id").focus()
    await page.keyboard.press("Control+A")
    await page.keyboard.type(document_id)
    await page.keyboard.press("Enter")


async def arrived(page: Any, text: str) -> None:
    """Wait until the form says this of where the document is."""
    await playwright.expect(page.locator("#arrival")).to_contain_text(text, timeout=WITHIN)


async def test_where_a_key_stands_is_told(watched: Stack, chromium: Any, new_id: str) -> None:
    assert (await watched.client.put(f"/notes/{new_id}", json={"n": 1})).status_code == 201
    async with page_of(chromium, watched.setup.api_url) as page:
        await page.locator("#key-mapping").select_option("notes")
        for asked, told in ((new_id, "Both sides hold the same."), (f"no-{new_id}", "Neither side has it.")):
            await page.locator("#key-id").fill(asked)
            await page.locator("#key-id").press("Enter")
            await playwright.expect(page.locator("#stands")).to_contain_text(told, timeout=WITHIN)


async def test_a_write_is_seen_to_arrive_on_both_sides(watched: Stack, chromium: Any, new_id: str) -> None:
    async with page_of(chromium, watched.setup.api_url) as page:
        await says(page, "All writes")
        began = monotonic()
        await write(page, new_id)
        await arrived(page, "Redis: has it, after")
        await arrived(page, "MongoDB: has it, after")
        await playwright.expect(page.locator("#latest")).to_contain_text(f"PUT /notes/{new_id}", timeout=WITHIN)
        print(f"shown after {monotonic() - began:.2f} s")
        assert not await page.locator("#freeze").is_visible()  # only the launcher's own API has it
        assert (await watched.client.put(f"/notes/{new_id}", json={"n": 1})).status_code == 200
        await says(page, "All writes reach MongoDB in ")
        assert await watched.stored(new_id, "notes") is not None


async def test_mongodb_frozen_and_healed_is_said_in_words(watched: Stack, chromium: Any, new_id: str) -> None:
    async with page_of(chromium, watched.setup.api_url) as page:
        await says(page, "All writes")
        watched.mongo.freeze()
        try:
            await says(page, "MongoDB does not answer: ")
            await write(page, new_id)
            await arrived(page, "Redis: has it, after")
            await arrived(page, "MongoDB: not yet; it waits on the sync stream")
            await says(page, "MongoDB does not answer: 1 write waits.")
            await playwright.expect(page.locator("#parts")).to_contain_text("retrying", timeout=WITHIN)
        finally:
            watched.mongo.thaw()
        await says(page, "MongoDB answers again and has the write that waited.")
        await arrived(page, "MongoDB: has it, after")
        spoken = await page.locator("#spoken").text_content()
        assert spoken.startswith("MongoDB answers again")


async def test_a_token_is_asked_for_and_kept_for_the_tab(watched: Stack, chromium: Any) -> None:
    port = free_port()
    api = watched.another_api("secured", port, WT_TOKENS=f"admin+write:{ADMIN}")
    await api.start()
    try:
        async with page_of(chromium, f"http://127.0.0.1:{port}") as page:
            await says(page, "A token is needed")
            await page.keyboard.type("wrong-0123456789abcdef")  # the field has the focus
            await page.keyboard.press("Enter")
            await playwright.expect(page.locator("#ask-why")).to_contain_text("not known here", timeout=WITHIN)
            await page.keyboard.type(ADMIN)
            await page.keyboard.press("Enter")
            await says(page, "All writes")
            await page.reload()
            await says(page, "All writes")
            assert ADMIN not in page.url
            assert await page.evaluate("localStorage.length + document.cookie.length") == 0
            await page.get_by_role("button", name="Forget the token").click()
            await says(page, "A token is needed")
    finally:
        await api.kill()


@pytest.mark.parametrize("look", LOOKS)
async def test_it_fits_and_everybody_can_use_it(watched: Stack, chromium: Any, look: str) -> None:
    async with page_of(chromium, watched.setup.api_url, look) as page:
        await says(page, "All writes")
        await playwright.expect(page.locator("#charts svg path").first).to_have_attribute(
            "d", re.compile("M.+"), timeout=WITHIN
        )
        width = await page.evaluate("document.scrollingElement.scrollWidth")
        assert width <= LOOKS[look]["viewport"]["width"]  # type: ignore[index]
        if AXE:
            found = await _axe(page)
            serious = [each for each in found if each["impact"] in ("serious", "critical")]
            assert serious == [], json.dumps(serious, indent=1)
            print(look, [each["id"] for each in found])


@pytest.mark.skipif(not SCREENSHOTS, reason="SCREENSHOTS names no folder for the docs' picture")
async def test_the_picture_for_the_docs(watched: Stack, chromium: Any) -> None:
    async with page_of(chromium, watched.setup.api_url) as page:
        await page.set_viewport_size({"width": 1200, "height": 1170})
        await says(page, "All writes")
        for burst in range(120):
            for n in range(5 + burst % 7):
                await watched.client.put(f"/todos/{burst}-{n}", json={"name": "some todo"})
                await watched.set(f"{burst}-{n}", {"name": "plain"}, "notes")
            if burst == 60:
                watched.mongo.freeze()
                await asyncio.sleep(3)
                watched.mongo.thaw()
            await asyncio.sleep(0.2)
        await write(page, "hello")
        await arrived(page, "MongoDB: has it, after")
        await page.evaluate("document.activeElement.blur()")
        await watched.client.put("/todos/hello", json={"name": "some todo"})
        await says(page, "All writes reach MongoDB in")
        await page.screenshot(path=Path(SCREENSHOTS) / "page.png")


async def _axe(page: Any) -> Any:
    """What axe-core finds; run beside the page's policy, which lets no script of others in."""
    await page.evaluate(AXE)
    return (await page.evaluate("axe.run(document, {resultTypes: ['violations']})"))["violations"]
