#!/usr/bin/env python3
"""What cuewire recognises where recognition is hard: languages, words' times, noise, levels, forced cuts.

    cargo build --release
    benches/accuracy.py --cuewire target/release/cuewire --model MODEL --speech SPEECH [--faster-whisper CT2_DIR] [WHAT ...]

WHAT is any of detection, words, invented, noise, levels, cuts; all of them by default. One line a figure.

SPEECH holds folders of recordings with manifest.jsonl, {"file", "text", "duration_s"} a line:

    en fr es it ru   prompts, for `detection`; en alone for `noise`, `levels` and `cuts`
    librivox         with "words": [{"word", "start_s", "end_s"}, ...], for `words`
    music            music without singing, no manifest, for `invented`

Everything else is made here from fixed seeds: silence and noises of two minutes, other levels, white noise at 10 dB below
the speech, Opus at 12 kbit/s and back, utterances joined with and without pauses.

    pip install numpy scipy soundfile jiwer whisper-normalizer faster-whisper

and the `ffmpeg` program for Opus; what cannot be made is said and left out.
"""
import argparse
import datetime
import difflib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import jiwer
import numpy as np
import soundfile
from whisper_normalizer.english import EnglishTextNormalizer

LANGUAGES = ["en", "fr", "es", "it", "ru"]
NORMALISE = EnglishTextNormalizer()


def manifest(folder):
    return [json.loads(line) for line in (folder / "manifest.jsonl").open(encoding="utf-8")]


def live(args, path, *options):
    """The events of one recording, without interims; its time begins at 0."""
    samples, rate = soundfile.read(path, dtype="int16")
    command = [args.cuewire, "live", "--model", args.model, "--rate", str(rate), "--channels", "1",
               "--interim-interval-ms", "0", "--start-time", "1970-01-01T00:00:00Z", *options]
    done = subprocess.run(command, input=samples.tobytes(), stdout=subprocess.PIPE, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def seconds(time):
    whole, nanos = time.rstrip("Z").split(".")
    return datetime.datetime.fromisoformat(whole + "+00:00").timestamp() + float("0." + nanos)


def texts(args, files, *options):
    """What `cuewire transcribe` makes of files, by their stems."""
    with tempfile.TemporaryDirectory() as out:
        command = [args.cuewire, "transcribe", "--model", args.model, "--format", "txt", "--output-dir", out, *options]
        subprocess.run([*command, *map(str, files)], check=True, stderr=subprocess.DEVNULL)
        return {Path(file).stem: (Path(out) / (Path(file).stem + ".txt")).read_text(encoding="utf-8") for file in files}


def errors(rows, heard):
    """Word error rate in per cent, and how many words were heard for each that was said."""
    said = [NORMALISE(row["text"]) for row in rows]
    found = [NORMALISE(heard[Path(row["file"]).stem]) for row in rows]
    words = sum(len(text.split()) for text in said)
    return 100 * jiwer.wer(said, found), sum(len(text.split()) for text in found) / words


def peer(args):
    from faster_whisper import WhisperModel
    return WhisperModel(args.faster_whisper, device="cpu", compute_type="int8", cpu_threads=2)


def detection(args, _):
    for language in LANGUAGES:
        folder = args.speech / language
        rows = [row for row in manifest(folder) if row["duration_s"] > 3]
        found = 0
        for row in rows:
            events = live(args, folder / row["file"], "--language", "auto")
            finals = [event for event in events if event["type"] == "final"]
            found += bool(finals) and finals[0]["language"] == language
        print(f"detection {language}: {found} of {len(rows)} utterances over 3 s, {100 * found / len(rows):.1f} %", flush=True)


def words(args, _):
    folder = args.speech / "librivox"
    rows = manifest(folder)

    def ours(row):
        for event in live(args, folder / row["file"], "--word-times", "--max-speech-caption-ms", "10000"):
            for word in event.get("words", []):
                yield word["text"], seconds(word["start_time"])

    def compare(name, words_of):
        plain = lambda word: {"mr": "mister", "mrs": "missus"}.get(w := re.sub(r"[^a-z']", "", word.lower()), w)
        off, count = [], 0
        for row in rows:
            truth, heard = row["words"], list(words_of(row))
            count += len(truth)
            matcher = difflib.SequenceMatcher(None, [plain(w["word"]) for w in truth], [plain(w) for w, _ in heard], autojunk=False)
            for a, b, size in matcher.get_matching_blocks():
                off += [heard[b + i][1] - truth[a + i]["start_s"] for i in range(size)]
        off = np.array(off)
        print(f"words {name}: {len(off)} of {count} words, starts off by {np.median(abs(off)) * 1000:.0f} ms (median), "
              f"{np.percentile(abs(off), 95) * 1000:.0f} ms (95th percentile), bias {np.median(off) * 1000:+.0f} ms", flush=True)

    compare("cuewire", ours)
    if args.faster_whisper:
        model = peer(args)

        def theirs(row):
            audio, _ = soundfile.read(folder / row["file"], dtype="float32")
            segments, _ = model.transcribe(audio, language="en", beam_size=1, word_timestamps=True, condition_on_previous_text=False)
            return [(word.word, word.start) for segment in segments for word in segment.words]

        compare("faster-whisper", theirs)


def invented(args, work):
    rng, count = np.random.default_rng(5), 120 * 16_000

    def pink():
        spectrum = np.fft.rfft(rng.standard_normal(count))
        spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), 1))
        noise = np.fft.irfft(spectrum, count)
        return noise / np.std(noise)

    files = {"silence": np.zeros(count)}
    for decibels in (-50, -30, -20):
        files[f"white {decibels} dBFS"] = rng.standard_normal(count) * 10 ** (decibels / 20)
        files[f"pink {decibels} dBFS"] = pink() * 10 ** (decibels / 20)
    paths = []
    for name, samples in files.items():
        soundfile.write(work / f"{name}.wav", np.clip(samples, -1, 1), 16_000, subtype="PCM_16")
        paths.append(work / f"{name}.wav")
    paths += sorted((args.speech / "music").glob("*.flac"))
    for options in ([], ["--vocabulary", "Kubernetes,Zbigniew"]):
        heard = texts(args, paths, *options)
        spoken = {name: text for name, text in heard.items() if text}
        print(f"invented{' with a vocabulary' if options else ''}: {len(spoken)} of {len(heard)} files have captions {spoken or ''}", flush=True)


def variant(rows, folder, work, name, change):
    """The recordings of a manifest, changed."""
    (work / name).mkdir()
    for row in rows:
        samples, rate = soundfile.read(folder / row["file"], dtype="float32")
        soundfile.write(work / name / row["file"], change(samples), rate)
    return [work / name / row["file"] for row in rows]


def report(kind, name, rows, heard):
    wer, ratio = errors(rows, heard)
    print(f"{kind} {name}: WER {wer:.2f} %, {ratio:.3f} words for each of the truth", flush=True)


def noise(args, work):
    folder = args.speech / "en"
    rows = manifest(folder)
    for seed in (5, 6):
        rng = np.random.default_rng(seed)

        def noisy(samples):
            mixed = samples + rng.standard_normal(len(samples)) * np.sqrt(np.mean(samples ** 2) / 10)
            return mixed / max(1, np.abs(mixed).max())

        files = variant(rows, folder, work, f"noise{seed}", noisy)
        report("noise 10 dB", f"cuewire, seed {seed}", rows, texts(args, files))
        if args.faster_whisper:
            model = peer(args)
            heard = {}
            for file in files:
                audio, _ = soundfile.read(file, dtype="float32")
                segments, _ = model.transcribe(audio, language="en", beam_size=1, condition_on_previous_text=False)
                heard[file.stem] = " ".join(segment.text for segment in segments)
            report("noise 10 dB", f"faster-whisper, seed {seed}", rows, heard)


def levels(args, work):
    folder = args.speech / "en"
    rows = manifest(folder)
    to_peak = lambda decibels: lambda x: x / np.abs(x).max() * 10 ** (decibels / 20)
    report("levels", "as recorded", rows, texts(args, [folder / row["file"] for row in rows]))
    for decibels in (-6, -30, -45):
        report("levels", f"{decibels} dBFS peak", rows, texts(args, variant(rows, folder, work, f"peak{decibels}", to_peak(decibels))))
    offset = lambda x: np.clip(x / np.abs(x).max() * 0.8 + 0.1, -1, 1)
    report("levels", "DC offset 0.1", rows, texts(args, variant(rows, folder, work, "offset", offset)))
    clipped = lambda x: np.clip(x / np.abs(x).max() * 10 ** (12 / 20), -1, 1)
    report("levels", "clipped by 12 dB", rows, texts(args, variant(rows, folder, work, "clipped", clipped)))
    if shutil.which("ffmpeg") is None:
        print("levels: ffmpeg is not here, Opus at 12 kbit/s left out", file=sys.stderr)
        return
    files = []
    for row in rows:
        files.append(work / (Path(row["file"]).stem + ".opus"))
        subprocess.run(["ffmpeg", "-v", "error", "-y", "-i", folder / row["file"], "-c:a", "libopus", "-b:a", "12k", files[-1]], check=True)
    report("levels", "Opus at 12 kbit/s", rows, texts(args, files))


def cuts(args, work):
    folder = args.speech / "en"
    rows = manifest(folder)
    recordings = [soundfile.read(folder / row["file"], dtype="float32") for row in rows]
    # Without pauses: a word's gap of 100 ms between utterances, and none at all, as nobody speaks.
    for name, pause in (("with pauses", 1.0), ("100 ms apart", 0.1), ("end to end", 0.0)):
        parts = []
        for samples, rate in recordings:
            loud = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max())
            parts += [samples[loud[0]:loud[-1] + 1], np.zeros(int(pause * rate), dtype=np.float32)]
        file = work / f"{name}.wav"
        soundfile.write(file, np.concatenate(parts), recordings[0][1])
        heard = texts(args, [file], "--max-speech-caption-ms", "5000")
        said = NORMALISE(" ".join(row["text"] for row in rows))
        print(f"cuts at 5000 ms, {name}: WER {100 * jiwer.wer(said, NORMALISE(heard[name])):.2f} %", flush=True)


def main():
    every = [detection, words, invented, noise, levels, cuts]
    names = {step.__name__: step for step in every}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuewire", required=True, help="the binary")
    parser.add_argument("--model", required=True, help="what its --model takes")
    parser.add_argument("--speech", required=True, type=Path, metavar="FOLDER")
    parser.add_argument("--faster-whisper", metavar="CT2_DIR", help="the same weights, for a row beside ours")
    parser.add_argument("what", nargs="*", metavar="WHAT", help=f"{', '.join(names)}; default: all")
    args = parser.parse_args()
    unknown = [name for name in args.what if name not in names]
    if unknown:
        parser.error(f"`{unknown[0]}` is none of {', '.join(names)}")
    for name in args.what or names:
        with tempfile.TemporaryDirectory() as work:
            names[name](args, Path(work))


if __name__ == "__main__":
    main()
