"""Records a terminal session as an SVG: runs real commands in pseudo-terminals against a real server,
and draws what the terminals' screens show. What changes from run to run (times, ids, the port) is drawn
the same each time, so that a picture changes only when what is shown does."""

import fcntl
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
from html import escape

import pyte
from wcwidth import wcwidth

COLUMNS = 86
DEADLINE_S = 60
NO_BREAK_SPACE = "\u00a0"

# Drawing, in pixels.
CELL_WIDTH, CELL_HEIGHT, FONT_SIZE, MARGIN, TITLE_HEIGHT, GAP = 8.4, 18, 14, 14, 30, 16
BACKGROUND, TITLE_BACKGROUND, FOREGROUND, DIM = "#161b22", "#2d333b", "#d1d7de", "#8b949e"
COLOURS = {
    # The first colours of the palette of 256, by the names that pyte has for them.
    "default": FOREGROUND,
    "cd0000": "#f47067",
    "00cd00": "#57ab5a",
    "cdcd00": "#d4a72c",
    "00cdcd": "#56d4dd",
}

# What is different in every run, and what is drawn instead, mostly of the same width.
SAME_EACH_TIME = [
    (r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", "01a204be-99e6-75cf-b50b-b533e798b1a2"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ", "2026-11-22 12:34:56Z"),
    (r"127\.0\.0\.1:\d{5}", "127.0.0.1:50051"),
    (r"127\.0\.0\.1_\d{5}", "127.0.0.1_50051"),
    (r"^\d\d:\d\d ", "12:34 "),
    (r"── \w+, \d+ \w+ \d{4} ──", "── Sunday, 22 November 2026 ──"),
    (r"reconnecting in \d s", "reconnecting in 2 s"),
]


class Screen(pyte.Screen):
    """A screen that knows faint characters, which pyte does not: they are kept as struck through, which
    nothing here is."""

    def select_graphic_rendition(self, *attributes, **rest):
        super().select_graphic_rendition(*attributes, **rest)
        # Faint; and neither faint nor bold. In a colour of the palette a 2 is its number.
        if attributes in ((2,), (22,)):
            self.cursor.attrs = self.cursor.attrs._replace(strikethrough=attributes == (2,))


class Terminal:
    """A command in a terminal."""

    def __init__(self, command, environment, rows):
        self.screen = Screen(COLUMNS, rows)
        self.stream = pyte.ByteStream(self.screen)
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(environment["HOME"])
            os.execvpe(command[0], command, environment)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, COLUMNS, 0, 0))

    def type(self, keys):
        os.write(self.fd, keys.encode())

    def wait(self, what, is_shown):
        deadline = time.monotonic() + DEADLINE_S
        while not is_shown(self.rows()):
            if time.monotonic() > deadline:
                sys.exit(f"no {what} on:\n" + "\n".join(self.rows()))
            if select.select([self.fd], [], [], 0.1)[0]:
                self.stream.feed(os.read(self.fd, 65536))

    def wait_for(self, text):
        self.wait(repr(text), lambda rows: any(text in row for row in rows))

    def rows(self):
        return ["".join(cell.data for cell in row).rstrip() for row in self.every_row()]

    def every_row(self):
        return [self.row(y) for y in range(self.screen.lines)]

    def row(self, y):
        """The cells of a row; that behind a wide character is empty, and no other."""
        cells = [self.screen.buffer[y][x] for x in range(self.screen.columns)]
        for x, cell in enumerate(cells):
            is_behind_wide = x > 0 and cells[x - 1].data and wcwidth(cells[x - 1].data[0]) == 2
            if cell.data == "" and not is_behind_wide:
                cells[x] = cell._replace(data=" ")
        return cells

    def cells(self):
        """The rows without the empty ones at the end."""
        rows = self.every_row()
        while rows and all(cell.data in (" ", "") for cell in rows[-1]):
            rows.pop()
        return rows

    def end(self):
        # An interactive shell ignores SIGTERM; nobody reads what it would say.
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.fd)


class Server:
    def __init__(self, binary, folder, port):
        self.command = [binary, "serve", "--listen", f"127.0.0.1:{port}", "--data-dir", f"{folder}/data"]
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.process.stdout.readline()  # The address, once it accepts calls.

    def kill(self):
        self.process.kill()
        self.process.wait()


def free_port():
    # Of five digits, as wide as the one that is drawn.
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return port if port > 9999 else free_port()


def record(binary, folder):
    port = free_port()
    server = Server(binary, folder, port)
    environment = {
        "PATH": f"{os.path.dirname(os.path.abspath(binary))}:{os.environ['PATH']}",
        "HOME": folder,
        "PEERPOST_CONFIG_DIR": ".config/peerpost",
        "PEERPOST_SERVER": f"127.0.0.1:{port}",
        "TERM": "xterm-256color",
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "PS1": "$ ",
    }
    try:
        shell = Terminal(["bash", "--norc", "--noprofile"], environment, 16)
        shell.wait_for("$")
        for command, shown in [
            ("peerpost register alice && peerpost register bob", "bob  "),
            ("peerpost --as alice send bob 'hello, bob'", "#1 -> bob"),
            ("echo 'the build is green ✓' | peerpost --as alice send bob", "#2 -> bob"),
            ("peerpost --as bob inbox --since today", "bob: the build"),
        ]:
            shell.type(command + "\r")
            shell.wait_for(shown)
            shell.wait("a prompt", lambda rows: [row for row in rows if row][-1] == "$")
        pictures = [("register, send, read", shell.cells()[:-1])]

        alice = Terminal([binary, "--as", "alice", "chat", "bob"], environment, 14)
        bob = Terminal([binary, "--as", "bob", "chat", "alice"], environment, 14)
        for terminal in (alice, bob):
            terminal.wait_for("live")
        bob.type("hi alice! is the 新 release out? 🎉\r")
        alice.wait_for("bob: hi alice!")
        alice.type("in a minute: I restart the server for it\r")
        bob.wait_for("alice: in a minute")
        alice.wait_for("bob ● online")
        server.kill()
        alice.wait_for("reconnecting in")
        alice.type("typed while it is away\r")
        alice.type("and nothing is lost\r")
        alice.wait("what waits", lambda rows: any("2 not sent yet" in row and "refused" in row for row in rows))
        pictures.append(("peerpost --as alice chat bob, the server killed", alice.cells()))
        server.start()
        bob.wait_for("and nothing is lost")
        bob.type("nor doubled\r")
        alice.wait_for("bob: nor doubled")
        alice.wait_for("bob ● online")
        alice.wait_for("live")
        pictures.append(("the server back", alice.cells()))
        for terminal in (shell, alice, bob):
            terminal.end()
        return pictures
    finally:
        server.kill()


def normalised(row):
    """The cells of a row with what is different in every run made the same."""
    # A cell behind a wide character is empty: characters are counted by cells.
    text = "".join(cell.data or "\0" for cell in row)
    for pattern, same in SAME_EACH_TIME:
        for found in re.finditer(pattern, text):
            begin = found.start()
            rest = row[found.end():] + [row[-1]._replace(data=" ")] * COLUMNS
            row = row[:begin] + [row[begin]._replace(data=c) for c in same] + rest
            row = row[:COLUMNS]
        text = "".join(cell.data or "\0" for cell in row)
    return row


def style(cell):
    colour = DIM if cell.strikethrough else COLOURS.get(cell.fg, FOREGROUND)
    return colour, cell.bold, cell.reverse


def draw_row(row, y):
    parts, x = [], 0
    while x < len(row):
        end = x + 1
        is_wide = lambda at: at + 1 < len(row) and row[at + 1].data == ""
        if is_wide(x):
            end = x + 2
        else:
            while end < len(row) and style(row[end]) == style(row[x]) and row[end].data != "" and not is_wide(end):
                end += 1
        text = "".join(cell.data for cell in row[x:end])
        colour, bold, reverse = style(row[x])
        left, width = MARGIN + x * CELL_WIDTH, (end - x) * CELL_WIDTH
        if reverse:
            parts.append(f'<rect x="{left:.1f}" y="{y - 13:.1f}" width="{width:.1f}" height="{CELL_HEIGHT}" fill="{FOREGROUND}"/>')
            colour = BACKGROUND
        if text.strip():
            length = (len(text.rstrip()) if not is_wide(x) else 2) * CELL_WIDTH
            weight = ' font-weight="bold"' if bold else ""
            # Of plain spaces in a row one is drawn, and the text stretched to its length.
            kept = escape(text.rstrip()).replace(" ", NO_BREAK_SPACE)
            parts.append(
                f'<text x="{left:.1f}" y="{y:.1f}" fill="{colour}"{weight} textLength="{length:.1f}" '
                f'lengthAdjust="spacingAndGlyphs">{kept}</text>'
            )
        x = end
    return parts


def draw(pictures):
    width = COLUMNS * CELL_WIDTH + 2 * MARGIN
    parts, top = [], 0
    for title, rows in pictures:
        height = TITLE_HEIGHT + len(rows) * CELL_HEIGHT + MARGIN
        parts.append(f'<rect x="0" y="{top}" width="{width:.1f}" height="{height}" rx="8" fill="{BACKGROUND}"/>')
        parts.append(f'<path d="M0 {top + 24} v-16 a8 8 0 0 1 8 -8 h{width - 16:.1f} a8 8 0 0 1 8 8 v16 z" fill="{TITLE_BACKGROUND}"/>')
        parts.append(f'<text x="{MARGIN}" y="{top + 17}" fill="{DIM}" font-size="12">{escape(title)}</text>')
        for n, row in enumerate(rows):
            parts += draw_row(normalised(row), top + TITLE_HEIGHT + 14 + n * CELL_HEIGHT)
        top += height + GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.1f} {top - GAP}" width="{width:.1f}" '
        f'font-family="ui-monospace, \'DejaVu Sans Mono\', Menlo, Consolas, monospace" font-size="{FONT_SIZE}">\n'
        + "\n".join(parts) + "\n</svg>\n"
    )


def main():
    binary, target = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        pictures = record(os.path.abspath(binary), folder)
    with open(target, "w", encoding="utf-8") as file:
        file.write(draw(pictures))
    print(f"drawn: {target}")


main()
