"""The page in Debian's chromium, where that is: it says nothing, loads nothing, and its table sorts."""

from __future__ import annotations

import http.server
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from distill.report.page.render import render_page

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")

FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--enable-logging=stderr", "--dump-dom"]  # fmt: skip


@pytest.fixture
def visits() -> Iterator[tuple[str, list[str]]]:
    """A server of this machine's own, and what was asked of it."""
    asked: list[str] = []

    class Door(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Door)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()


def browse(text: str, folder: Path) -> tuple[str, list[str]]:
    """The document as it is after its scripts, and what it said on the console."""
    file = folder / "page.html"
    file.write_bytes(text.encode("utf-8", "backslashreplace"))
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", file.as_uri()]
    done = subprocess.run(command, capture_output=True, timeout=120, check=True)
    said = re.findall(r"CONSOLE[:(]\d+\)?\] (.*)", done.stderr.decode(errors="replace"))
    return done.stdout.decode(errors="replace"), said


def test_hostile_names_do_nothing_and_nothing_is_loaded(make_page, visits, tmp_path: Path) -> None:
    place, asked = visits
    word = (
        f"</style></title></script><script>document.title='owned';fetch('{place}/a')</script>"
        f'"\'><img src={place}/b onerror="document.title=1"><link rel=stylesheet href={place}/c>'
        f"<style>@import '{place}/d'; body{{background:url({place}/e)}}</style><iframe src={place}/f></iframe>{{}}"
    )
    document, said = browse(render_page(make_page(word)), tmp_path)
    assert said == []
    assert asked == []
    assert "&lt;/title&gt;" in re.search("<title>(.*?)</title>", document)[1]
    assert document.count("<script") == 1
    assert "<iframe" not in document


def test_the_browser_would_have_told(make_page, visits, tmp_path: Path) -> None:
    """The same eyes on a page that does load and fail: the test above can see."""
    place, asked = visits
    loud = f'<!doctype html><title>x</title><img src="{place}/seen"><script>console.error("boom"); absent()</script>'
    _, said = browse(loud, tmp_path)
    assert "/seen" in asked
    assert len(said) == 2
    policed = render_page(make_page()).replace("</main>", f'<img src="{place}/never"></main>')
    _, said = browse(policed, tmp_path)
    assert "/never" not in asked
    assert any("Content Security Policy" in line for line in said)


def test_a_head_sorts_numbers_by_value_and_turns_round(make_page, tmp_path: Path) -> None:
    text = render_page(make_page(students=3))  # parameters 900,000, then 90,000 to 90,002
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    press = """
    <script>
    const head = [...document.querySelectorAll("table.sortable th")].find((each) => each.innerText.startsWith("param"));
    const order = () => [...document.querySelectorAll("table.sortable tbody th")].map((each) => each.innerText.trim());
    const seen = [];
    for (const _ of [1, 2]) { head.querySelector("button").click(); seen.push(order().join(" ")); }
    document.title = seen.join("; ") + "; " + head.getAttribute("aria-sort");
    </script></body>
    """
    document, said = browse(text.replace("</body>", press), tmp_path)
    assert said == []
    title = re.search("<title>(.*?)</title>", document)[1]
    assert title == "big small2 small1 small0; small0 small1 small2 big; ascending"


def test_nothing_is_wider_than_a_phone(make_page, tmp_path: Path) -> None:
    """Only tables scroll sideways, each in a box of its own."""
    text = render_page(make_page("a_rather_long_name_of_a_network_{}"))
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    frame = """<!doctype html><title></title><iframe id=f width=360 height=800></iframe><script>
    const frame = document.getElementById("f");
    frame.srcdoc = %s;
    frame.onload = () => { const page = frame.contentDocument.documentElement;
      document.title = page.scrollWidth + " " + page.clientWidth; };
    </script>"""
    import json

    document, _ = browse(frame % json.dumps(text).replace("</", "<\\/"), tmp_path)
    scroll, client = map(int, re.search("<title>(.*?)</title>", document)[1].split())
    assert 300 < client <= 360
    assert scroll == client
