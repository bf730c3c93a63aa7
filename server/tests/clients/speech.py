#!/usr/bin/env python3
"""Recordings for the clients, and what the engine makes of them offline.

    speech.py CUEWIRE FOLDER

In: the repository's recordings, and with CUEWIRE_TEST_SPEECH those of a larger collection. Out, in FOLDER: NAME.pcm (16 bits,
16 kHz, mono), NAME.wav (the same) and NAME.HOW.jsonl, the transcript. HOW is the language, and the longest caption where set.
"""

import json
import os
import subprocess
import sys
import wave
from pathlib import Path

import soundfile

RATE = 16_000
SECOND = bytes(2 * RATE)
TESTDATA = Path(__file__).resolve().parents[3] / "testdata" / "speech"
SHORT = TESTDATA / "en-number-not-answering.flac"
FRENCH = TESTDATA / "fr-conf-now-recording.flac"
# Name: what it consists of, a second of silence where None; and how it is transcribed.
RECORDINGS = {
    # Cut off in the middle of speech, as when somebody leaves.
    "short": ([SHORT], [("en", None)]),
    "fr": ([FRENCH], [("fr", None), ("en", None)]),
    "french": ([FRENCH, None], [("fr", None), ("auto", None)]),
    "en": ([TESTDATA / "en-agent-alreadyon.flac", None], [("en", None)]),
    "long": ([TESTDATA / "en-queue-periodic-announce.flac", None], [("en", None), ("en", 5000)]),
    "fr-en": ([FRENCH, None, SHORT, None], [("fr", None), ("en", None)]),
    "talk": (
        [SHORT, None, TESTDATA / "en-tt-monkeysintro.flac", None, TESTDATA / "austen-0880.flac", None],
        [("en", None)],
    ),
}


def more():
    folder = os.environ.get("CUEWIRE_TEST_SPEECH")
    if not folder:
        why = "CUEWIRE_TEST_SPEECH is not set; it should name a folder with fr/ and en/ (see CONTRIBUTING.md)"
        print(f"!!!! SKIPPED: longer recordings in French and English: {why}", flush=True)
        return {}
    folder = Path(folder)
    parts = [folder / "fr" / "agent-alreadyon.flac", None, folder / "en" / "vm-msgforwarded.flac", None]
    return {"more-fr-en": (parts, [("fr", None), ("en", None)])}


def pcm_of(path):
    sound = soundfile.SoundFile(path)
    if (sound.samplerate, sound.channels) != (RATE, 1):
        sys.exit(f"{path}: expected 16 kHz mono, got {sound.samplerate} Hz and {sound.channels} channels")
    return bytes(sound.buffer_read(dtype="int16"))


def main(cuewire, folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name, (parts, ways) in (RECORDINGS | more()).items():
        pcm = b"".join(SECOND if part is None else pcm_of(part) for part in parts)
        (folder / f"{name}.pcm").write_bytes(pcm)
        with wave.open(str(folder / f"{name}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes(pcm)
        texts = {}
        for language, longest_ms in ways:
            how = language if longest_ms is None else f"{language}.{longest_ms}"
            options = [] if longest_ms is None else ["--max-speech-caption-ms", str(longest_ms)]
            command = [cuewire, "transcribe", "--language", language, *options, str(folder / f"{name}.wav")]
            out = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
            (folder / f"{name}.{how}.jsonl").write_bytes(out)
            texts[how] = [json.loads(line)["text"] for line in out.splitlines()]
            print(f"{name} as {how}: {texts[how]}", flush=True)
        # Else the checks that compare them would say nothing.
        different = [tuple(text) for how, text in texts.items() if how != "auto"]
        if len(set(different)) != len(different) or not all(texts.values()):
            sys.exit(f"{name}: expected captions that differ from each other, got {texts}")
        if name.endswith("fr-en") and (len(texts["en"]) != 2 or not texts["fr"]):
            sys.exit(f"{name}: expected a French and an English caption, got {texts}")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
