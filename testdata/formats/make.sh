#!/bin/sh
# Makes every file of this folder from one recording (ffmpeg 5.1): sh make.sh RECORDING
# RECORDING is en/confbridge-has-joined of Debian's asterisk-core-sounds-en-wav (16 kHz, mono, 16 bits, 1.7 s).
set -eu
cd "$(dirname "$0")"
in=$1

make() { # OUTPUT [CODEC OPTIONS…]
    out=$1
    shift
    ffmpeg -v error -y -i "$in" -map_metadata -1 -map a "$@" -fflags +bitexact -flags:a +bitexact "$out"
}

make speech.flac -c:a flac -compression_level 12
make s16.wav -c:a pcm_s16le
make f32.wav -c:a pcm_f32le -t 0.6
make alaw.wav -c:a pcm_alaw -t 1
make mulaw.wav -c:a pcm_mulaw -t 1
make ima-adpcm.wav -c:a adpcm_ima_wav
make s16.aiff -c:a pcm_s16be -t 0.8
make lame.mp3 -c:a libmp3lame -b:a 32k
make no-xing.mp3 -c:a libmp3lame -b:a 32k -write_xing 0
make vorbis.ogg -c:a libvorbis -q:a 3 -page_duration 200000
make opus.ogg -c:a libopus -b:a 24k -page_duration 200000
make vorbis.webm -c:a libvorbis -q:a 3
make opus.webm -c:a libopus -b:a 24k
make aac.mkv -c:a aac -b:a 32k
make aac.m4a -c:a aac -b:a 32k
make aac-faststart.m4a -c:a aac -b:a 32k -movflags +faststart
make aac-fragmented.mp4 -c:a aac -b:a 32k -movflags +frag_keyframe+delay_moov+default_base_moof -frag_duration 500000
make aac.adts -c:a aac -b:a 32k -f adts
make alac.m4a -c:a alac -t 0.8
make opus.mp4 -c:a libopus -b:a 24k -strict -2
# Left: the speech. Right: the speech, half as loud and upside down.
make stereo.wav -af 'pan=stereo|c0=c0|c1=-0.5*c0' -c:a pcm_s16le -t 0.4
make surround.ogg -af 'pan=5.1|FL=c0|FR=c0|FC=0.5*c0|LFE=c0|BL=c0|BR=-0.5*c0' -c:a libopus -b:a 96k -mapping_family 1 -t 0.4
make layer2.mp2 -c:a mp2 -b:a 32k -t 0.4
# A video with the speech behind it, and one without.
ffmpeg -v error -y -f lavfi -i testsrc=size=32x32:rate=5:duration=0.8 -i "$in" -map 0:v -map 1:a -map_metadata -1 -t 0.8 \
    -c:v mpeg4 -b:v 8k -c:a aac -b:a 32k -fflags +bitexact -flags +bitexact video-and-speech.mp4
ffmpeg -v error -y -f lavfi -i testsrc=size=32x32:rate=5:duration=0.8 -map_metadata -1 \
    -c:v mpeg4 -b:v 8k -fflags +bitexact -flags +bitexact video-only.mp4
