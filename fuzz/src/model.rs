//! The models that the target `model` changes: one in every container that is read.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use candle_core::quantized::GgmlDType;
use cuewire::asr::whisper::testing::RandomModel;
use cuewire::fuzz::Files;

/// One model in every container that is read.
#[allow(dead_code, reason = "tests use the rest")]
#[path = "../../tests/support/containers.rs"]
mod containers;

use containers::{Checkpoint, ENGLISH, Form, Sizes};

static MODELS: LazyLock<Vec<Files>> = LazyLock::new(|| {
    let checkpoint = Checkpoint::new(Sizes { width: 32, encoder_layers: 1, decoder_layers: 1, ..ENGLISH });
    let one = |name: &str, bytes: Vec<u8>| Files::from([(name.to_string(), bytes)]);
    let folder = |write: &dyn Fn(&Path)| {
        let folder = tempfile::tempdir().expect("there is room for temporary files");
        write(folder.path());
        let entries = fs::read_dir(folder.path()).expect("a folder that was made can be read");
        let file = |path: &Path| {
            let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
            (name, fs::read(path).expect("a file that was written can be read"))
        };
        entries.map(|entry| file(&entry.expect("a folder that was made can be read").path())).collect::<Files>()
    };
    let random = RandomModel::default();
    let ct2 = |form| {
        folder(&|path| {
            checkpoint.write_texts(path, "");
            fs::write(path.join("model.bin"), checkpoint.ct2(form)).expect("there is room for temporary files");
        })
    };
    vec![
        one("model.gguf", random.gguf().expect("memory takes what is written")),
        folder(&|path| checkpoint.write_folder(path, Form::F16, 1)),
        folder(&|path| checkpoint.write_folder(path, Form::Bf16, 3)),
        folder(&|path| {
            checkpoint.write_texts(path, "");
            checkpoint.write_candle(&path.join("model.gguf"), Form::F16, true);
        }),
        one("ggml.bin", checkpoint.ggml(Form::F16)),
        one("ggml.bin", checkpoint.ggml(Form::Blocks(GgmlDType::Q8_0))),
        ct2(Form::F16),
        ct2(Form::Int8),
    ]
});

/// Changes one of the models as `data` says, and loads it.
///
/// # Panics
/// Where loading or decoding does.
pub fn model(data: &[u8]) {
    cuewire::fuzz::model(data, &MODELS);
}
