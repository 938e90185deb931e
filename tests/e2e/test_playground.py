"""The page at GET /: its bytes everywhere, and what it does where a headless Chromium is found (WEIR_BROWSER names another).
SCREENSHOTS=FOLDER keeps pictures of it."""
import base64
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from conftest import ROOT, SLOW, Server
from test_edge import ask

sys.path.insert(0, str(ROOT / "tests/support"))
import browser  # noqa: E402

PAGE = (ROOT / "router/ui/playground.html").read_bytes()
DESK, PHONE = (1200, 800, False), (390, 844, True)
in_browser = pytest.mark.skipif(not browser.find(), reason="no Chromium here")


@pytest.fixture(scope="module")
def server():
    s = Server("--max-num-seqs", 8, "--served-model-name", "tiny")
    yield s
    s.stop()


def open_page(url, size=DESK):
    b = browser.Browser(*size)
    b.open(url)
    return b


@pytest.fixture(params=[DESK, PHONE], ids=["desktop", "phone"])
def page(request, server):
    b = open_page(server.url + "/", request.param)
    b.until("document.getElementById('state').className === 'ready'")
    b.name = "phone" if request.param is PHONE else "desktop"
    yield b
    picture(b, request.node.originalname)
    assert [e for e in b.errors if "status of 4" not in e] == []
    assert all(u.startswith(server.url + "/") for u in b.requests), b.requests
    b.close()


def picture(b, name):
    if os.environ.get("SCREENSHOTS"):
        b.screenshot(pathlib.Path(os.environ["SCREENSHOTS"]) / f"{name}-{b.name}.png")


def settings(b, **values):
    for name, value in values.items():
        b.js(f"document.getElementById('{name}').{'checked' if isinstance(value, bool) else 'value'} = {str(value).lower() if isinstance(value, bool) else repr(value)}")


def say(b, text):
    n = b.js("document.querySelectorAll('.assistant').length")
    b.type("#prompt", text)
    b.key("Enter", 13)
    b.until(f"document.querySelectorAll('.assistant').length === {n + 1} && !document.querySelector('.busy')", 30 * SLOW)
    return b.js("[...document.querySelectorAll('.assistant')].pop().innerText")


def test_bytes_and_headers(server, serve):
    status, headers, body = ask(server, "/")
    assert status == 200 and body == PAGE and headers["Content-Type"] == "text/html; charset=utf-8"
    policy = headers["Content-Security-Policy"]
    for tag in ("script", "style"):
        (inner,) = re.findall(f"<{tag}>(.*?)</{tag}>".encode(), PAGE, re.S)
        assert f"{tag}-src 'sha256-{base64.b64encode(hashlib.sha256(inner).digest()).decode()}'" in policy
    assert "default-src 'none'" in policy and "unsafe" not in policy
    status, headers, body = ask(server, "/", "HEAD")
    assert status == 200 and body == b"" and headers["Content-Length"] == str(len(PAGE))
    assert ask(server, "/", "POST")[0] == 405
    keyed = serve("--mock", "--api-key", "sk-1", "--root-path", "/in/here")
    assert ask(keyed, "/")[2] == ask(keyed, "/in/here/")[2] == PAGE  # open without a key
    off = serve("--mock", "--no-playground")
    assert ask(off, "/")[0] == 404


def test_nothing_from_elsewhere():
    text = PAGE.decode()
    assert set(re.findall(r"https?://[^\"' ]+", text)) == {"http://www.w3.org/2000/svg"}  # a name, not an address that is asked
    assert not re.search(r"<link(?! rel=\"icon\" href=\"data:)|<img|<iframe|@import|\burl\(|innerHTML|eval\(|\bon\w+=\"", text)


@pytest.mark.skipif(not shutil.which("node"), reason="no node here")
def test_syntax_of_the_script():
    script = re.search("<script>(.*?)</script>", PAGE.decode(), re.S)[1]
    assert subprocess.run(["node", "--check", "-"], input=script, text=True, capture_output=True).returncode == 0


@in_browser
def test_a_chat(page):
    settings(page, max_tokens="40", temperature="0", logprobs=True)
    first = say(page, "Tell me about rivers.")
    assert "40 tokens" in first and "first after" in first and "a second" in first and "ended by length" in first
    again = say(page, "And now?")
    assert page.js("messages.length") == 4 and "40 tokens" in again
    page.click(".assistant:last-child .foot button")
    assert page.js("document.querySelectorAll('.tokens .list span').length") == 40 == page.js("document.querySelectorAll('.tokens rect').length")
    page.js("document.querySelectorAll('.tokens .list span')[3].dispatchEvent(new MouseEvent('mouseenter'))")
    assert re.search(r"4: \".*\", \d+ ms after the last, [\d.]+%", page.js("document.querySelector('.tokens .note').textContent"))
    assert page.js("document.documentElement.scrollWidth <= innerWidth && document.body.scrollHeight <= innerHeight")


@in_browser
def test_settings_and_requests(page):
    if page.name == "phone":
        page.click("#open")
        page.until("document.getElementById('side').getBoundingClientRect().right <= innerWidth + 1")
        picture(page, "test_settings_open")
    settings(page, system="Be brief.", temperature="0.5", stop_strings="END\nstop", more='{"top_k": 7}', stream=False, key="sk-shown-nowhere")
    page.click("#curl")
    text = page.js("document.getElementById('command').textContent")
    assert "Authorization: Bearer $WEIR_API_KEY" in text and "sk-shown-nowhere" not in text and '"content": "Be brief."' in text and '"top_k": 7' in text
    picture(page, "test_curl_open")
    page.js("document.getElementById('command').textContent = ''")
    page.click("#close")
    settings(page, temperature="warm")
    assert "temperature is not a number" in say(page, "it's \"quoted\"")
    settings(page, temperature="3", key="")
    assert "less_than_equal" in say(page, "too warm")
    settings(page, temperature="0", max_tokens="5")
    assert "5 tokens" in say(page, "whole")
    assert page.js("document.querySelectorAll('.error').length") == 2
    page.js("document.getElementById('clear').click()")
    assert page.js("messages.length === 0 && !document.getElementById('empty').hidden")


@in_browser
def test_the_curl_command_runs(page, server):
    settings(page, max_tokens="3", system="It's a 'test'.", kind="chat")
    page.type("#prompt", "a 'quoted' \\ line\nand another $HOME `x`")
    text = page.js("command()")
    r = subprocess.run(["bash", "-c", text], capture_output=True, text=True, timeout=60)
    assert r.stdout.endswith("data: [DONE]\n\n"), r
    settings(page, kind="text", stream=False)
    r = subprocess.run(["bash", "-c", page.js("command()")], capture_output=True, text=True, timeout=60)
    assert '"completion_tokens":3' in r.stdout, r


@in_browser
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desktop", "phone"])
def test_stop_and_try_again(serve, size):
    page = open_page(serve("--mock", "--mock-step-ms", 20).url + "/", size)
    page.until("document.getElementById('state').className === 'ready'")
    settings(page, max_tokens="1500", more='{"ignore_eos": true}')
    page.type("#prompt", "long")
    page.click("#send")
    page.until("running && document.querySelector('.busy') && document.querySelector('.busy').textContent.length > 20", 30 * SLOW)
    page.click("#stop")
    page.until("!running")
    assert "ended by you" in page.js("document.querySelector('.assistant').innerText")
    settings(page, max_tokens="4")
    page.js("document.getElementById('again').click()")
    page.until("!running && document.querySelector('.assistant').innerText.includes('4 tokens')", 30 * SLOW)
    assert page.js("document.querySelectorAll('.assistant').length") == 1 and page.errors == []
    page.close()


@in_browser
def test_keys_and_a_prefix(serve):
    s = serve("--mock", "--api-key", "sk-1", "--root-path", "/in/here")
    b = open_page(s.url + "/in/here/")
    b.until("document.getElementById('state').title === 'needs a key'")
    assert "API key" in say(b, "x")
    b.js("document.getElementById('key').value = 'sk-1'; document.getElementById('key').onchange()")
    b.until("document.getElementById('state').className === 'ready'")
    settings(b, max_tokens="4")
    assert "4 tokens" in say(b, "x")
    assert all("/in/here/" in u for u in b.requests)
    b.close()


@in_browser
def test_model_text_is_never_markup(page):
    page.js("window.hacked = 0")
    hostile = "<img src=x onerror=\"hacked=1\"><script>hacked=1</" + "script>\n```html\n<b>x</b>\n```\nend"
    page.js(f"const a = new Answer(); a.add({hostile!r}); $('log').append(a.root); a.end(null)")
    assert page.js("document.querySelectorAll('#log img, #log script, #log b:not(#empty b)').length") == 0
    assert page.js("document.querySelector('.assistant pre').textContent") == "<b>x</b>" and page.js("hacked") == 0
