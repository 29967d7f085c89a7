"""Takes the picture of the README, docs/live.svg, from a demo of some seconds: ``python docs/picture.py``."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from rich.console import Console

from penstock.demo.main import demo
from penstock.demo.scene import Moment, Scene

SECONDS = 20
FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)  # a page should not fetch fonts for a picture


class Camera(Scene):
    """Draws into nothing, and keeps the last moment before the workload ended."""

    def __init__(self) -> None:
        super().__init__(Console(record=True, width=112, height=32, file=io.StringIO(), force_terminal=True))
        self.last: Moment | None = None

    def draw(self, moment: Moment) -> None:
        """Keep it."""
        if moment.seconds_left is not None and moment.seconds_left >= SECONDS / 4:
            self.last = moment
            self.render(moment)

    def save(self, path: Path) -> None:
        """Write the picture."""
        self.console.export_text(clear=True)
        if self.last:
            self.console.print(self.render(self.last))
        picture = self.console.export_svg(title="penstock demo", unique_id="live")
        path.write_text(FONTS.sub("", picture), encoding="utf-8")


if __name__ == "__main__":
    camera = Camera()
    code = demo(SECONDS, scene=camera)
    camera.save(Path(__file__).with_name("live.svg"))
    sys.exit(code)
