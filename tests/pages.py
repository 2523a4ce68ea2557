"""What all pages have in common, told from their text."""

import base64
import hashlib
import re
from html import unescape


def text_of(html: str) -> str:
    """What stands on the page, without styles, scripts, static charts, and what the reader opens, whose values are Python's."""
    for name in ("style", "script", "svg", "details"):
        html = re.sub(rf"<{name}\b.*?</{name}>", "", html, flags=re.DOTALL)
    return unescape(re.sub(r"<[^>]*>", " ", html))


def outline(html: str) -> list[tuple[int, str]]:
    """The headings of a page in order: (level, text)."""
    found = re.findall(r"<h([1-6])>(.*?)</h\1>", html, flags=re.DOTALL)
    return [(int(level), unescape(text)) for level, text in found]


def reads_without_scripts(html: str) -> None:
    """Assert what holds for every page: nothing is fetched, scripts are allowed one by one, charts are there without them, and
    headings, row heads and texts for readers who see no figures are in order."""
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy is not None
    allowed = unescape(policy[1])
    assert "default-src 'none'" in allowed
    assert "unsafe-eval" not in allowed
    scripts = re.findall(r"<script>(.*?)</script>", html, flags=re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in scripts]
    assert len(scripts) == 2
    assert allowed.split("script-src ")[1].split(";")[0] == " ".join(f"'sha256-{digest}'" for digest in digests)
    body = re.sub(r"<script\b.*?</script>", "", html, flags=re.DOTALL)
    assert re.findall(r"""(?:src|href|srcset)=["'](?!data:)""", body) == []
    assert re.findall(r"\son\w+=", re.sub(r">[^<]*<", "><", body)) == []
    assert html.count('<div class="live">') == html.count('<div class="static"><svg')
    assert all(re.search(r'alt="[^"]+"', image) for image in re.findall(r"<img[^>]*>", body))
    levels = [level for level, _ in outline(html)]
    assert levels[0] == 1
    assert set(levels[1:]) <= {2}
    rows = re.findall(r"<tbody.*?</tbody>", html, flags=re.DOTALL)
    assert all(row.count("<tr") == row.count('<th scope="row"') for row in rows)
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html
