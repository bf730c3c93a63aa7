#!/usr/bin/env python3
"""Makes the reference files of this folder with the numpy oracle (whisper_reference.py dump).

    make_references.py ORACLE MODEL SPEECH

ORACLE is whisper_reference.py, MODEL the Hugging Face folder of tiny.en, SPEECH a folder of 16 kHz FLAC files with a
manifest. Written, little endian, all f32 but the audio:
  audio.raw        i16, one utterance, 16 kHz
  mel.f32          [80, frames / 8] log-mel of that utterance, every 8th frame of the first 480
  encoder.f32      [rows, 384] encoder output at the positions that references.json lists
  logits.f32       [vocabulary / 4] logits after the prompt, every 4th token
  references.json  the positions, and the token ids and text of ten utterances
"""
import json, subprocess, sys, tempfile
from pathlib import Path

import numpy as np, soundfile as sf

ROWS = [0, 1, 5, 50, 100, 150, 175, 180, 200, 400, 700, 1000, 1300, 1446, 1498, 1499]
oracle, model, speech = sys.argv[1], sys.argv[2], Path(sys.argv[3])
here = Path(__file__).parent
files = [json.loads(x)["file"] for x in (speech / "manifest.jsonl").read_text().splitlines()][:10]
utterances = []
for i, file in enumerate(files):
    with tempfile.NamedTemporaryFile(suffix=".npz") as out:
        text = subprocess.run([sys.executable, oracle, "dump", model, speech / file, out.name], check=True, capture_output=True, text=True).stdout.strip()
        dump = np.load(out.name)
        utterances.append({"file": file, "text": text, "tokens": dump["tokens"].tolist()})
        if i == 1:
            samples, rate = sf.read(speech / file, dtype="int16")
            assert rate == 16000 and samples.nbytes <= 120_000
            samples.astype("<i2").tofile(here / "audio.raw")
            dump["log_mel"][:, :480:8].astype("<f4").tofile(here / "mel.f32")
            dump["encoder"][ROWS].astype("<f4").tofile(here / "encoder.f32")
            dump["logits"][0, ::4].astype("<f4").tofile(here / "logits.f32")
(here / "references.json").write_text(json.dumps({"audio": 1, "encoder_rows": ROWS, "utterances": utterances}, indent=1) + "\n")
