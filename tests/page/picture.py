"""Makes the picture of the README: ``python -m tests.page.picture docs/page.png``, which takes some minutes.

What it shows is real: a picker, simulated servers with a small KV cache, and clients that come and go.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image

from epp.simulate.options import EngineOptions
from tests.page.browser import Browser
from tests.page.setting import setting

WIDTH, HEIGHT = 1100, 860
COLOURS = 200
"""Of the picture, which then takes a third."""
CLIENTS = (12, 12, 24, 36, 24, 16)
"""At once, each for some seconds."""
EACH_S = 22.0
ENGINE = EngineOptions(kv_blocks=320, max_num_seqs=6)


async def main(path: Path) -> None:
    """Write the picture."""
    program = shutil.which("chromium")
    if program is None:
        raise SystemExit("chromium is not there: Debian's package chromium (apt-get install chromium)")
    with tempfile.TemporaryDirectory(prefix="page-picture-") as folder:
        async with setting(6, Path(folder), "--explain-share=0.02", engine=ENGINE) as running, Browser(program) as browser:
            for clients in CLIENTS:
                async with running.load(clients):
                    await asyncio.sleep(EACH_S)
            running.reload(queue_weight=3)
            async with running.load(CLIENTS[-1]):
                await asyncio.sleep(EACH_S / 2)
                await running.refused()
                await running.failed()
                page = await browser.page()
                await page.open(f"{running.url}/", width=WIDTH, height=HEIGHT)
                await page.until("document.querySelectorAll('#decisions-table tbody tr').length > 10")
                await page.picture(path, height=HEIGHT)
    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(COLOURS)
    small.save(path, optimize=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
