#!/usr/bin/env python3
"""docs/service.md, run as written.

    manual.py --bin PROGRAM --work FOLDER

In: the program. Out: each `sh` block of the manual with what it says, in one shell, with a home of its own, at what looks like the root of a
clone; of what is marked `console` that which changes files or looks into them, as root and at the paths that it names, in a file system
that is thrown away; the rest is shown. Beside them the manual's links, its table of settings against `cuewire serve --help`, and the
systemd unit, with its drop-in and without, by `systemd-analyze`. Exits with 1 where anything is wrong.

Ports that are taken on this machine are replaced by free ones, which is said. Needs bash, curl, jq and python3.
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
DROP_IN = UNIT.with_name("tls.conf")
MOST_S = 150
# Of `console` this is run, with or without `sudo`. What builds, asks systemd or is a media program is not.
RUN = ("cp ", "cuewire ", "groupadd ", "install ", "journalctl ", "jq ", "mv ", "/etc/letsencrypt/renewal-hooks/deploy/cuewire")
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


# What a machine has by then: a program that was built, data, a copy of them, a certificate, a log. Where `mount` takes things over, that is
# seen here alone.
MACHINE = r"""
set -euo pipefail
root=$1 program=$2 home=$3 source=$4
mount --make-rprivate /
mount -t tmpfs -o mode=755 none "$root"
for path in /*; do
    if [ -L "$path" ]; then cp -P "$path" "$root/"; elif [ -d "$path" ]; then mkdir "$root$path"; fi
    case $path in /etc | /var | /backups | /root) ;; *) [ ! -d "$path" ] || [ -L "$path" ] || mount --rbind "$path" "$root$path" ;; esac
done
cp -a /etc/. "$root/etc/"
mkdir -p "$root"/{backups,var/log/cuewire,var/lib/private,etc/letsencrypt/{live/captions.example.org,renewal-hooks/deploy},etc/systemd/system}
mkdir "$root/root/clone" "$root/root/bin"
mount --bind "$root/root/bin" "$root/usr/local/bin"
mkdir -p "$root/root/clone/target/release" && ln -s "$source/server" "$root/root/clone/server"
ln -s "$program" "$root/root/clone/target/release/cuewire"
cp -a "$home/backup-1" "$root/var/lib/private/cuewire" && ln -s private/cuewire "$root/var/lib/cuewire"
cp -a "$home/backup-1" "$root/backups/2026-11-24"
echo '{"status": 429, "user_id": "alice", "address": "192.0.2.1"}' > "$root/var/log/cuewire/requests.jsonl"
openssl req -x509 -newkey rsa:2048 -nodes -days 90 -subj /CN=captions.example.org 2>&- \
    -keyout "$root/etc/letsencrypt/live/captions.example.org/privkey.pem" -out "$root/etc/letsencrypt/live/captions.example.org/fullchain.pem"
printf '#!/bin/bash\nexec env "$@"\n' > "$root/root/bin/sudo"
# As it is: systemd's lines are among the service's.
printf '#!/bin/bash\necho "Started cuewire."\necho %s\n' "'{\"level\":\"ERROR\",\"span\":{\"request_id\":\"4f7c…\"}}'" > "$root/root/bin/journalctl"
chmod 755 "$root"/root/bin/*
unset CUEWIRE_API_KEY CUEWIRE_API_SECRET XDG_DATA_HOME
HOME=/root PATH=/usr/local/bin:$PATH exec chroot "$root" bash -euo pipefail -c 'cd /root/clone; eval "$0"' "$5"
"""
# What has to be true of the machine behind that.
BEHIND = r"""
echo '---- behind it'
stat -c '%a %U:%G %n' /usr/local/bin/cuewire /etc/cuewire/cuewire.toml /etc/cuewire/tls/* | tee ~/found
grep -qx '755 root:root /usr/local/bin/cuewire' ~/found
grep -qx '600 root:root /etc/cuewire/cuewire.toml' ~/found
grep -qx '640 root:cuewire-tls /etc/cuewire/tls/privkey.pem' ~/found
for copy in /var/lib/cuewire /backups/before; do cuewire serve --check-config --offline --config /etc/cuewire/cuewire.toml --data-dir $copy; done
printf 'tls_cert = "/etc/cuewire/tls/fullchain.pem"\ntls_key = "/etc/cuewire/tls/privkey.pem"\n' > ~/tls.toml
cuewire serve --check-config --offline --config ~/tls.toml --data-dir /var/lib/cuewire
"""


def console(args, commands):
    """Runs what can be run; gives what was not."""
    is_run = lambda command: re.sub(r"^(sudo )?(\w+=\S+ )*", "", command).startswith(RUN)
    ran = [(number, command) for number, command in commands if is_run(command)]
    if os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode != 0:
        say("!!!! SKIPPED: the commands of `console`, for want of root with a mount namespace")
        return commands
    script = "\n".join(line for number, command in ran for line in (f"echo '---- line {number}'", command)) + BEHIND
    root = args.work / "manual" / "root"
    root.mkdir()
    done = subprocess.run(["unshare", "--mount", "bash", "-c", MACHINE, "bash", root, args.bin, args.work / "manual", ROOT, script],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=MOST_S)
    print(done.stdout, end="", flush=True)
    if done.returncode != 0:
        fail(f"expected that the commands of `console` succeed, got {done.returncode}")
    if missing := [found for found in ('"request_id":"4f7c…"', "\talice\t") if done.stdout.count(found) != 1]:
        fail(f"expected that {' and '.join(missing)} are found in the logs, once")
    root.rmdir()
    say(f"ok   {len(ran)} commands of `console`")
    return [one for one in commands if one not in ran]


def unit(args):
    if not shutil.which("systemd-analyze"):
        return say("!!!! SKIPPED: the systemd unit, for want of systemd-analyze")
    folder = args.work / "manual"
    copy = folder / "cuewire.service"
    copy.write_text(UNIT.read_text().replace("/usr/local/bin/cuewire", str(args.bin)))
    drop_in = folder / "cuewire.service.d" / DROP_IN.name
    drop_in.parent.mkdir()
    for is_with in (True, False):
        drop_in.write_text(DROP_IN.read_text() if is_with else "")
        verified = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True)
        if verified.returncode or str(copy) in verified.stderr or str(drop_in) in verified.stderr:
            fail(f"the unit{' with its drop-in' if is_with else ''}: {verified.stderr}")
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
    if missing := [tool for tool in ("bash", "curl", "jq", "python3") if not shutil.which(tool)]:
        fail(f"expected {', '.join(missing)} on PATH: `apt-get install {' '.join(missing)}`")
    text = MANUAL.read_text()
    found = blocks(text)
    shell = [block for block in found if block[0] == "sh"]
    if len(shell) < 10:
        fail(f"expected blocks of `sh` in {MANUAL}, got {len(shell)}")
    run(args, shell)
    links(text)
    settings(args, text)
    unit(args)
    commands = [(number, line[2:]) for kind, first, text in found if kind == "console" for number, line in enumerate(text.splitlines(), first) if line.startswith("$ ")]
    rest = console(args, commands)
    say(f"!!!! not run, since they build, ask systemd or are media programs: {len(rest)} of {len(commands)} commands of `console`")
    for number, command in rest:
        say(f"     {MANUAL.name}:{number} {command}")
    say(f"pass manual: {len(shell)} blocks")


if __name__ == "__main__":
    main()
