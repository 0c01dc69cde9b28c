"""What a web page loads when it is opened."""

import re
from html.parser import HTMLParser

LOADING = {"script", "link", "img", "iframe"}
IN_CSS = re.compile(r"""(?:url\(|@import)\s*["']?([^"')\s;]+)""")


class _Addresses(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found, self._style = [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self._style = tag == "style"
        for name, value in attrs:
            if tag in LOADING and name in {"src", "href"}:
                self.found.append(value or "")
            elif name == "style":
                self.found += IN_CSS.findall(value or "")

    def handle_endtag(self, tag):
        self._style = False

    def handle_data(self, data):
        if self._style:
            self.found += IN_CSS.findall(data)


def loaded(folder):
    """Addresses that the pages and style sheets in a folder and below it load, by file; data in the page are none."""
    found = {path: _Addresses(path.read_text()).found for path in folder.rglob("*.html")}
    assert found, f"no page in {folder}"
    found |= {path: IN_CSS.findall(path.read_text()) for path in folder.rglob("*.css")}
    return {
        str(path.relative_to(folder)): addresses
        for path, all_of in found.items()
        if (addresses := [address for address in all_of if not address.startswith("data:")])
    }


def loaded_from_elsewhere(folder):
    """Of these addresses those of other hosts."""
    return [
        (page, address)
        for page, addresses in loaded(folder).items()
        for address in addresses
        if re.match(r"(https?:)?//", address)
    ]
