#!/usr/bin/env python3
"""docs/service.md, run as written.

    manual.py --bin PROGRAM --work FOLDER

In: the program. Out: each `sh` block of the manual with what it says, in one shell, with a home of its own, at what looks like the root of a
clone; what is marked `console` is counted and shown, and not run. Beside them the manual's links, its table of settings against
`cuewire serve --help`, and the systemd unit by `systemd-analyze`. Exits with 1 where anything is wrong.

Ports that are taken on this machine are replaced by free ones, which is said. Needs curl and jq.
"""

import argparse
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
MANUAL = ROOT / "docs" / "service.md"
UNIT = ROOT / "server" / "deploy" / "cuewire.service"
MOST_S = 150
# What `systemd-analyze security` may say, of 10.
MOST_EXPOSED = 1.5


def say(line):
    print(line, flush=True)


def fail(why):
    say(f"FAIL manual: {why}")
    sys.exit(1)


def blocks(text):
    """(kind, line, text) of each."""
    found, kind, began, lines = [], None, 0, []
    for number, line in enumerate(text.splitlines(), 1):
        if kind is None and (fence := re.fullmatch(r"```(\w+)", line)):
            kind, began, lines = fence[1], number + 1, []
        elif kind is not None and line == "```":
            found.append((kind, began, "\n".join(lines)))
            kind = None
        elif kind is not None:
            lines.append(line)
    return found


def ports(text):
    """The text with ports that are free here."""
    for port in sorted(set(re.findall(r'127\.0\.0\.1[:", ]+(\d{4})\b', text))):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", int(port)))
                continue
            except OSError:
                pass
        with socket.create_server(("127.0.0.1", 0)) as free:
            other = free.getsockname()[1]
        say(f"!!!! port {port} is taken: {other} in its place")
        text = text.replace(port, str(other))
        if port == "8080":
            # The default of the program.
            text = text.replace("cuewire serve", f"cuewire serve --listen 127.0.0.1:{other}")
            text = text.replace("cuewire call", f"cuewire call --url http://127.0.0.1:{other}")
    return text


def run(args, shell):
    home = args.work / "manual"
    shutil.rmtree(home, ignore_errors=True)
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "cuewire").symlink_to(args.bin)
    clone = home / "clone"
    clone.mkdir()
    (clone / "testdata").symlink_to(ROOT / "testdata")
    script = ["set -euo pipefail"]
    for _, line, text in shell:
        script += [f"echo '---- line {line}'", text]
    script = ports("\n".join(script))
    env = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    env = {**env, "HOME": str(home), "PATH": f"{home / 'bin'}:{env['PATH']}"}
    for name in ("XDG_DATA_HOME", "CUEWIRE_API_KEY", "CUEWIRE_API_SECRET"):
        env.pop(name, None)
    process = subprocess.Popen(["bash", "-c", script], cwd=clone, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True)

    def end():
        """With all that it has started."""
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    late = threading.Timer(MOST_S, end)
    late.start()
    at, said = "", []
    # What it started in the background has its output too: it is over when the shell is.
    reader = threading.Thread(target=lambda: [said.append(line) or print(line, end="", flush=True) for line in process.stdout], daemon=True)
    reader.start()
    code = process.wait()
    is_late = not late.is_alive()
    late.cancel()
    end()
    reader.join(5)
    ran = [line for line in said if line.startswith("---- line ")]
    at = ran[-1].split()[-1] if ran else "?"
    if code != 0:
        fail(f"expected that the block at {MANUAL.name}:{at} succeeds, got {code}{f', after {MOST_S} s' if is_late else ''}")
    if len(ran) != len(shell):
        fail(f"expected {len(shell)} blocks, got {len(ran)}")
    if left := [path.name for path in clone.iterdir() if path.name != "testdata"]:
        fail(f"expected that nothing is left in the clone, got {left}")
    secret = re.search(r"^api_secret +(\S+)$", "".join(said), re.M)[1]
    if sum(secret in line for line in said) != 1:
        fail("expected that the secret is shown by `cuewire key show` alone")


def links(text):
    slug = lambda heading: re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
    anchors = {slug(heading) for heading in re.findall(r"^#+ (.*)$", text, re.M)}
    for target in re.findall(r"\]\(([^)]+)\)", text):
        path, _, anchor = target.partition("#")
        if target.startswith("http"):
            continue
        if path and not (MANUAL.parent / path).exists():
            fail(f"{target} leads nowhere")
        if not path and anchor not in anchors:
            fail(f"#{anchor} leads nowhere")


def settings(args, text):
    told = subprocess.run([args.bin, "serve", "--help"], check=True, capture_output=True, text=True).stdout
    told = set(re.findall(r"^  (\w+) = ", told.split("Storages beside")[0], re.M))
    table = text.partition("\n## Settings\n")[2]
    first = "\n".join(row.split("|")[1] for row in table.splitlines() if row.startswith("|"))
    documented = set(re.findall(r"`(\w+)`", first))
    if told != documented:
        fail(f"settings: only in --help {sorted(told - documented)}, only in the manual {sorted(documented - told)}")


def unit(args):
    if not shutil.which("systemd-analyze"):
        return say("!!!! SKIPPED: the systemd unit, for want of systemd-analyze")
    folder = args.work / "manual"
    copy = folder / "cuewire.service"
    copy.write_text(UNIT.read_text().replace("/usr/local/bin/cuewire", str(args.bin)))
    verified = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True)
    if verified.returncode or str(copy) in verified.stderr:
        fail(f"the unit: {verified.stderr}")
    looked = subprocess.run(["systemd-analyze", "security", "--offline=true", copy], capture_output=True, text=True)
    found = re.search(r"exposure level for cuewire\.service: ([\d.]+)", looked.stdout)
    if not found or float(found[1]) > MOST_EXPOSED:
        fail(f"expected an exposure of at most {MOST_EXPOSED}: {looked.stdout[-300:]} {looked.stderr}")
    say(f"ok   the systemd unit, its exposure {found[1]} of 10")


def main():
    parser = argparse.ArgumentParser()
    for name in ("--bin", "--work"):
        parser.add_argument(name, type=lambda path: Path(path).resolve(), required=True)
    args = parser.parse_args()
    if missing := [tool for tool in ("curl", "jq") if not shutil.which(tool)]:
        fail(f"expected {', '.join(missing)} on PATH: `apt-get install {' '.join(missing)}`")
    text = MANUAL.read_text()
    found = blocks(text)
    shell = [block for block in found if block[0] == "sh"]
    console = [(line, text) for kind, line, text in found if kind == "console"]
    if len(shell) < 10:
        fail(f"expected blocks of `sh` in {MANUAL}, got {len(shell)}")
    run(args, shell)
    links(text)
    settings(args, text)
    unit(args)
    commands = [(number, line[2:]) for first, text in console for number, line in enumerate(text.splitlines(), first) if line.startswith("$ ")]
    say(f"!!!! not run, since they change the machine: {len(commands)} commands in {len(console)} blocks of `console`")
    for number, command in commands:
        say(f"     {MANUAL.name}:{number} {command}")
    say(f"pass manual: {len(shell)} blocks")


if __name__ == "__main__":
    main()
