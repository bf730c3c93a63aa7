//! The model of a run, and `cuewire model …`.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use cuewire::asr::whisper::{self, WhisperModel};

use crate::Failure;
use crate::args::{ConvertArgs, InfoArgs};
use crate::cache;
use crate::output::print;

/// The model that is part of the program.
#[cfg(all(embedded_model, not(test)))]
fn embedded() -> Option<&'static [u8]> {
    static MODEL: &[u8] = include_bytes!(env!("CUEWIRE_EMBEDDED_MODEL"));
    Some(MODEL)
}

#[cfg(not(all(embedded_model, not(test))))]
fn embedded() -> Option<&'static [u8]> {
    None
}

/// Loads the model at `path` or of that name, or the built-in one.
pub(crate) fn load(path: Option<&Path>) -> Result<Arc<WhisperModel>, Failure> {
    let model = match (path, embedded()) {
        (Some(path), _) => WhisperModel::load(cache::resolve(path)?)?,
        (None, Some(bytes)) => WhisperModel::from_static(bytes)?,
        (None, None) => {
            return Err(Failure("this build has no model built in: give one with --model".into()));
        }
    };
    Ok(Arc::new(model))
}

#[cfg(not(feature = "hub"))]
pub(crate) fn pull(args: &crate::args::PullArgs) -> Result<ExitCode, Failure> {
    Err(Failure(format!(
        "this build does not go to the network: build it with the feature `hub`, or \
         `hf download {} --revision {}` puts the model where --model {} finds it",
        args.name.repository(),
        args.revision,
        args.name
    )))
}

pub(crate) fn info(args: &InfoArgs) -> Result<ExitCode, Failure> {
    let info = load(args.path.as_deref())?.info();
    let languages: Vec<&str> = info.languages.iter().map(|language| language.code()).collect();
    let text = format!(
        "name          {}\n\
         container     {}\n\
         size          {}\n\
         parameters    {:.1} M\n\
         weights       {:.1} MB, {}\n\
         width         {}\n\
         layers        {} encoder, {} decoder\n\
         mel bands     {}\n\
         vocabulary    {}\n\
         languages     {}\n",
        info.name,
        info.container,
        info.size,
        info.parameters as f64 / 1e6,
        info.weight_bytes as f64 / 1e6,
        info.quantization,
        info.d_model,
        info.encoder_layers,
        info.decoder_layers,
        info.mel_bands,
        info.vocabulary,
        languages.join(" "),
    );
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn convert(args: &ConvertArgs) -> Result<ExitCode, Failure> {
    let output = args.output.display();
    if args.output.exists() {
        return Err(Failure(format!("{output} exists: remove it first, or name another file")));
    }
    let model = WhisperModel::load(cache::resolve(&args.input)?)?;
    // A conversion that breaks off leaves no file that looks whole.
    let mut part = args.output.clone().into_os_string();
    part.push(".part");
    let written = (|| -> Result<(), Failure> {
        let mut file = BufWriter::new(File::create(&part)?);
        whisper::convert(&model, args.quantize.into(), &mut file)?;
        file.into_inner()?.sync_all()?;
        fs::rename(&part, &args.output)?;
        Ok(())
    })();
    written.map_err(|Failure(error)| {
        let _ = fs::remove_file(&part);
        Failure(format!("cannot write {output}: {error}"))
    })?;
    let bytes = fs::metadata(&args.output)?.len();
    eprintln!("{output}: {:.1} MB", bytes as f64 / 1e6);
    Ok(ExitCode::SUCCESS)
}
