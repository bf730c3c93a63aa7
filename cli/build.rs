//! Compiles the default model into the binary where the repository has it. The package that a registry carries does
//! not: its binary asks for `--model`.

use std::path::Path;

fn main() {
    println!("cargo::rustc-check-cfg=cfg(embedded_model)");
    // Cargo runs this in the package's folder; the folder that it was compiled in may be gone.
    let model = Path::new("../testdata/models/whisper-base-q8_0.gguf");
    println!("cargo::rerun-if-changed={}", model.display());
    if let Ok(path) = model.canonicalize() {
        println!("cargo::rustc-cfg=embedded_model");
        println!("cargo::rustc-env=CUEWIRE_EMBEDDED_MODEL={}", path.display());
    }
}
