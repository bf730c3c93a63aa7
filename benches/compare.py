#!/usr/bin/env python3
"""Compare cuewire with faster-whisper (int8) and whisper.cpp (q8_0): a Markdown table of speed, CPU, errors and memory.

    cargo build --release --example recognise
    benches/compare.py --cuewire target/release/examples/recognise --model HF_FOLDER --speech FOLDER \\
        --faster-whisper CT2_DIR --whisper-cpp GGML_FILE --language en --threads 2 --rounds 3

The programs take turns (A B C A B C ...), each turn a process of its own. A process loads its model and the audio,
recognises the first utterance as a warm-up, and then is timed on all of them: one at a time, whole, greedy, without
timestamps, voice activity detection or other temperatures. The clock runs while an utterance is recognised, no longer.

Columns: seconds by the clock (median of the rounds, least and most) and of CPU; both as multiples of cuewire's in the
same round (median of the rounds); milliseconds an utterance; word error rate; the process's memory at its peak, which
for the peers includes Python's and its libraries'.

FOLDER holds recordings, mono at 16 kHz and up to 30 s each, and manifest.jsonl: {"file": ..., "text": ...} a line,
where "text" is what is said. Use an idle machine: a program whose threads wait for each other takes several times as
long where it shares the cores. The output says so where other programs were at work.

What it needs

    pip install faster-whisper pywhispercpp soundfile jiwer whisper-normalizer

The ready-made pywhispercpp leaves out what not every CPU can do (AVX-512, VNNI), and may be slower for it; the output
names what is in it. Built on the machine itself, with a C++ compiler, it has all:

    CMAKE_ARGS='-DCMAKE_INSTALL_RPATH=$ORIGIN -DCMAKE_BUILD_WITH_INSTALL_RPATH=ON' \\
        pip install --no-cache-dir --force-reinstall --no-deps --no-binary pywhispercpp pywhispercpp

All get the same weights. HF_FOLDER is a Whisper model in Hugging Face layout, or a GGUF file that `cuewire model
convert` made of it. CT2_DIR is made of it by CTranslate2's converter, which needs transformers and torch:

    ct2-transformers-converter --model HF_FOLDER --output_dir CT2_DIR --quantization float16 \\
        --copy_files tokenizer.json preprocessor_config.json

GGML_FILE is made of it by whisper.cpp's own tools, from its source (pywhispercpp's source package holds it too).
WHISPER_REPO is openai-whisper's source, for its mel filters:

    python whisper.cpp/models/convert-h5-to-ggml.py HF_FOLDER WHISPER_REPO .
    cmake -S whisper.cpp -B build && cmake --build build --target whisper-quantize
    build/bin/whisper-quantize ggml-model.bin GGML_FILE q8_0
"""
import argparse
import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

CUEWIRE = "cuewire"
# Each peer's package, and its module in Python.
PEERS = {"faster-whisper": ("faster-whisper", "faster_whisper"), "whisper.cpp": ("pywhispercpp", "pywhispercpp")}


# A turn of a peer: what the worker's process does.

def faster_whisper(args):
    import ctranslate2
    from faster_whisper import WhisperModel
    model = WhisperModel(args.model, device="cpu", compute_type="int8", cpu_threads=args.threads)

    def transcribe(audio):
        segments, _ = model.transcribe(audio, language=args.language, beam_size=1, temperature=0.0,
                                       without_timestamps=True, condition_on_previous_text=False)
        return " ".join(segment.text for segment in segments)
    return transcribe, f"CTranslate2 {ctranslate2.__version__}, {model.model.compute_type}"


def whisper_cpp(args):
    from pywhispercpp.model import Model
    model = Model(args.model, n_threads=args.threads, language=args.language, no_context=True, single_segment=True,
                  no_timestamps=True, temperature_inc=0.0, print_progress=False, print_realtime=False,
                  redirect_whispercpp_logs_to=None)
    features = re.findall(r"(\w+) = 1", Model.system_info())
    return lambda audio: " ".join(segment.text for segment in model.transcribe(audio)), " ".join(features)


def worker(argv):
    """Does what examples/recognise.rs does, with another program, and prints the same line."""
    parser = argparse.ArgumentParser(prog="compare.py worker", description=worker.__doc__)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("model")
    parser.add_argument("speech", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--language", default="en")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args(argv)
    import numpy as np
    import soundfile

    transcribe, build = (faster_whisper if args.peer == "faster-whisper" else whisper_cpp)(args)
    files = [args.speech / row["file"] for row in manifest(args.speech)]
    utterances = []
    for file in files:
        audio, rate = soundfile.read(file, dtype="float32")
        if rate != 16000 or audio.ndim != 1:
            sys.exit(f"{file}: mono at 16000 Hz is needed: convert it first")
        utterances.append(audio)
    transcribe(utterances[0])
    texts, took, cpu = [], [], time.process_time()
    for audio in utterances:
        start = time.perf_counter()
        texts.append(transcribe(audio))
        took.append(time.perf_counter() - start)
    cpu = time.process_time() - cpu
    args.out.mkdir(parents=True, exist_ok=True)
    for file, text in zip(files, texts):
        (args.out / (file.stem + ".txt")).write_text(text, encoding="utf-8")
    audio_s = sum(map(len, utterances)) / 16000
    p50, p95, p99 = (round(ms) for ms in np.percentile(took, [50, 95, 99]) * 1000)
    print(json.dumps({
        "peer": args.peer, "threads": args.threads, "files": len(files), "audio_s": round(audio_s, 1),
        "work_s": round(sum(took), 2), "cpu_s": round(cpu, 2), "rtf": round(sum(took) / audio_s, 4), "p50_ms": p50,
        "p95_ms": p95, "p99_ms": p99, "peak_rss_bytes": peak_rss_bytes(), "build": build}))


def peak_rss_bytes():
    # Not getrusage: its figure outlives exec, and so includes the process that started this one.
    status = Path("/proc/self/status")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) * 1024 if status.exists() else None


# The comparison.

def manifest(folder):
    lines = (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.strip()]


def scorer(speech, language):
    """From a folder of transcripts to their word error rate in per cent, or nothing where the packages are missing."""
    try:
        import jiwer
        from whisper_normalizer.basic import BasicTextNormalizer
        from whisper_normalizer.english import EnglishTextNormalizer
    except ImportError as error:
        print(f"compare.py: no word error rates: {error}; pip install jiwer whisper-normalizer", file=sys.stderr)
        return lambda out: None
    # As Whisper's own evaluation does; references outside English often lack diacritics.
    normalise = EnglishTextNormalizer() if language == "en" else BasicTextNormalizer(remove_diacritics=True)
    rows = manifest(speech)
    references = [normalise(row["text"]) for row in rows]

    def score(out):
        texts = [(out / (Path(row["file"]).stem + ".txt")).read_text(encoding="utf-8") for row in rows]
        return 100 * jiwer.wer(references, [normalise(text) for text in texts])
    return score


def turn(args, program, threads, out):
    """One process of a program; its line."""
    if program == CUEWIRE:
        command = [args.cuewire, args.model]
    else:
        command = [sys.executable, __file__, "worker", program, args.models[program]]
    command += [args.speech, out, "--language", args.language, "--threads", threads]
    # NumPy, which computes faster-whisper's features, would take every core.
    env = os.environ | {"OPENBLAS_NUM_THREADS": str(threads)}
    start, others = time.monotonic(), others_cpu_s()
    done = subprocess.run([str(part) for part in command], env=env, capture_output=True, text=True)
    others = (others_cpu_s() - others) / (time.monotonic() - start)
    if done.returncode != 0:
        sys.exit(f"compare.py: {program} failed:\n{done.stderr.strip()}")
    return json.loads(done.stdout.splitlines()[-1]) | {"others_cores": others}


def others_cpu_s():
    """CPU seconds so far that were neither idle nor this script's processes'; zero where that cannot be known."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0
    user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = map(int, stat.read_text().splitlines()[0].split()[1:])
    ticks = user + nice + system + irq + softirq + steal
    return ticks / os.sysconf("SC_CLK_TCK") - sum(os.times()[:4])


def table(name, results):
    """`results`: threads to programs to the lines of the rounds."""
    def number(values, digits=0):
        return "–" if None in values else f"{median(values):.{digits}f}"

    def ratio(lines, base, key):
        return number([a[key] / b[key] if a[key] is not None and b[key] else None for a, b in zip(lines, base)], 2)

    print("| model | threads | program | wall s (min–max) | CPU s | wall ÷ cuewire | CPU ÷ cuewire | p50 ms | p95 ms "
          "| WER % | peak MiB |")
    print("|---|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    for threads, programs in results.items():
        base = programs[CUEWIRE]
        for program, lines in programs.items():
            values = {key: [line[key] for line in lines] for key in lines[0]}
            wall = values["work_s"]
            print("|", " | ".join([
                name, str(threads), program,
                f"{median(wall):.2f} ({min(wall):.2f}–{max(wall):.2f})", number(values["cpu_s"], 2),
                ratio(lines, base, "work_s"), ratio(lines, base, "cpu_s"),
                number(values["p50_ms"]), number(values["p95_ms"]), number(values["wer"], 2),
                number([rss and rss / 2**20 for rss in values["peak_rss_bytes"]])]), "|")


def conditions(args, results):
    """What the figures hold for."""
    programs = next(iter(results.values()))
    line = programs[CUEWIRE][0]
    cpuinfo = Path("/proc/cpuinfo")
    cpu = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    print(f"\n{line['files']} utterances, {line['audio_s']} s of audio, {args.rounds} round(s); "
          f"{os.cpu_count()} cores, {cpu[1] if cpu else 'unknown CPU'}.\n")
    for peer in args.peers:
        package, _ = PEERS[peer]
        print(f"- {peer}: {package} {importlib.metadata.version(package)}; {programs[peer][0]['build']}")
    others = max(line["others_cores"] for programs in results.values() for lines in programs.values() for line in lines)
    if others > 0.1:
        print(f"- Not to be trusted: other programs took up to {others:.1f} cores during a turn.")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    option = parser.add_argument
    option("--cuewire", type=Path, required=True, metavar="BINARY", help="examples/recognise.rs, built with --release")
    option("--model", type=Path, required=True, metavar="HF_FOLDER", help="cuewire's model; its name heads the rows")
    option("--speech", type=Path, required=True, metavar="FOLDER", help="recordings and manifest.jsonl")
    option("--faster-whisper", type=Path, metavar="CT2_DIR", help="faster-whisper's model")
    option("--whisper-cpp", type=Path, metavar="GGML_FILE", help="whisper.cpp's model")
    option("--peers", default=",".join(PEERS), help="those to compare with, by commas [%(default)s]")
    option("--language", default="en", metavar="CODE", help="what is spoken [%(default)s]")
    option("--threads", type=int, nargs="+", default=[2], metavar="N", help="one comparison for each number [2]")
    option("--rounds", type=int, default=3, metavar="N", help="turns of each program [%(default)s]")
    args = parser.parse_args()
    args.peers = [peer for peer in args.peers.split(",") if peer]
    args.models = {"faster-whisper": args.faster_whisper, "whisper.cpp": args.whisper_cpp}
    for number in [*args.threads, args.rounds]:
        if number < 1:
            parser.error(f"--threads and --rounds are whole numbers from 1 on, not {number}")
    if not args.cuewire.is_file():
        parser.error(f"--cuewire: there is no {args.cuewire}; build it: cargo build --release --example recognise")
    if not (args.speech / "manifest.jsonl").is_file():
        parser.error(f"--speech: there is no manifest.jsonl in {args.speech}")
    for peer in args.peers:
        if peer not in PEERS:
            parser.error(f"--peers: {peer} is none of {', '.join(PEERS)}")
        without = f"or do without it: --peers '{','.join(other for other in args.peers if other != peer)}'"
        flag = "--" + peer.replace(".", "-")
        model = args.models[peer]
        for package, module in [PEERS[peer], ("soundfile", "soundfile")]:
            if importlib.util.find_spec(module) is None:
                parser.error(f"{peer} needs {package}: pip install {package}, {without}")
        if model is None:
            parser.error(f"{peer} needs its model: {flag} (see --help), {without}")
        if not model.exists():  # Else the peer would take it for a name and look for it on the network.
            parser.error(f"{flag}: there is no {model}")
    return args


def main():
    args = arguments()
    # The binary's own folder is not on the search path.
    args.cuewire = args.cuewire.resolve()
    score = scorer(args.speech, args.language)
    results = {threads: {program: [] for program in [CUEWIRE, *args.peers]} for threads in args.threads}
    with tempfile.TemporaryDirectory() as scratch:
        for threads, programs in results.items():
            for number in range(1, args.rounds + 1):
                for program, lines in programs.items():
                    out = Path(scratch, program)
                    line = turn(args, program, threads, out)
                    lines.append(line | {"wer": score(out)})
                    progress = f"threads {threads}, round {number}/{args.rounds}: {program}, {line['work_s']} s"
                    print(progress, file=sys.stderr)
    table(args.model.resolve().name, results)
    conditions(args, results)


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        worker(sys.argv[2:])
    else:
        main()
