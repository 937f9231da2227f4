"""
The demo's one window: where everything is, how it is doing, and what the last word of each part was.
"""

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from capstan.supervisor import Child


def render(urls: Mapping[str, str], children: Sequence[Child], numbers: Mapping[str, str]) -> RenderableType:
    """
    Return the window.

    Args:
        urls: what it is called -> where it is.
        children: the supervised parts, in the order they are shown.
        numbers: what is counted -> the count, formatted.
    """
    places = Table.grid(padding=(0, 2))
    for name, url in urls.items():
        places.add_row(Text(name, style="bold"), Text(url, style="cyan"))
    parts = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", expand=True)
    parts.add_column("part", no_wrap=True)
    parts.add_column("pid", justify="right", no_wrap=True)
    parts.add_column("restarts", justify="right", no_wrap=True)
    parts.add_column("last said", ratio=1, no_wrap=True, overflow="ellipsis")
    for child in children:
        pid = Text(str(child.pid), style="green") if child.pid else Text("down", style="bold red")
        parts.add_row(child.name, pid, str(child.restarts), Text(child.last_words(), style="dim"))
    counts = Table.grid(padding=(0, 2))
    for name, number in numbers.items():
        counts.add_row(Text(name, style="dim"), Text(number))
    hint = Text("Ctrl-C stops everything", style="dim")
    return Panel(Group(places, Text(), parts, Text(), counts, Text(), hint), title="capstan demo", title_align="left")
