//! whisper.cpp's own files.
//!
//! In: the file's bytes. Out: an index of its tensors under Hugging Face's names, and the texts of a Hugging Face folder
//! made from its header. Source of the layout: whisper.cpp, `models/convert-pt-to-ggml.py` and `whisper_model_load`.

use serde_json::json;

use super::Source;
use super::form::Form;
use super::openai;
use super::ranks::{LONGEST, Ranks};
use super::store::{Bytes, Entry, Scan, Store};
use crate::asr::whisper::error::ModelError;

/// The first bytes of a file: `ggml` as a little-endian number.
pub(super) const MAGIC: &[u8] = b"lmgg";
/// More tensors than any Whisper has (large: 1 259), and a longer name.
const MOST_TENSORS: usize = 1 << 14;
const LONGEST_NAME: usize = 256;

/// Parts of a layer, as whisper.cpp and as Hugging Face name them.
const PARTS: [(&str, &str); 13] = [
    ("attn.query", "self_attn.q_proj"),
    ("attn.key", "self_attn.k_proj"),
    ("attn.value", "self_attn.v_proj"),
    ("attn.out", "self_attn.out_proj"),
    ("attn_ln", "self_attn_layer_norm"),
    ("cross_attn.query", "encoder_attn.q_proj"),
    ("cross_attn.key", "encoder_attn.k_proj"),
    ("cross_attn.value", "encoder_attn.v_proj"),
    ("cross_attn.out", "encoder_attn.out_proj"),
    ("cross_attn_ln", "encoder_attn_layer_norm"),
    ("mlp.0", "fc1"),
    ("mlp.2", "fc2"),
    ("mlp_ln", "final_layer_norm"),
];

/// Hugging Face's name of a tensor; `None` for what is not known.
fn name(name: &str) -> Option<String> {
    let (part, rest) = name.split_once('.')?;
    let rest = match (part, rest) {
        (_, "positional_embedding") => "embed_positions.weight".to_string(),
        ("decoder", "token_embedding.weight") => "embed_tokens.weight".to_string(),
        ("encoder", "ln_post.weight") | ("decoder", "ln.weight") => "layer_norm.weight".to_string(),
        ("encoder", "ln_post.bias") | ("decoder", "ln.bias") => "layer_norm.bias".to_string(),
        ("encoder", _) if rest.starts_with("conv") => rest.to_string(),
        ("encoder" | "decoder", _) => {
            let (layer, rest) = rest.strip_prefix("blocks.")?.split_once('.')?;
            let (block, leaf) = rest.rsplit_once('.')?;
            let (_, block) = PARTS.iter().find(|(theirs, _)| *theirs == block)?;
            format!("layers.{layer}.{block}.{leaf}")
        }
        _ => return None,
    };
    Some(format!("model.{part}.{rest}"))
}

struct Header {
    /// Eleven numbers, as whisper.cpp's `whisper_hparams`.
    parameters: [usize; 11],
    tokens: Vec<Vec<u8>>,
}

fn header(scan: &mut Scan<'_>) -> Result<Header, String> {
    scan.skip(MAGIC.len())?;
    let mut parameters = [0; 11];
    for parameter in &mut parameters {
        *parameter = scan.count()?;
    }
    // The filters of the front end: ours are the same, computed.
    let (bands, bins) = (scan.count()?, scan.count()?);
    if bands != parameters[9] {
        return Err(format!("it announces {} mel bands and has filters for {bands}", parameters[9]));
    }
    scan.skip(bands.saturating_mul(bins).saturating_mul(4))?;
    // Whatever the first number says: tokens are kept in memory.
    let (count, vocabulary) = (scan.count()?, parameters[0].min(openai::VOCABULARIES[2]));
    if count > vocabulary {
        return Err(format!("it lists {count} tokens, of {vocabulary}"));
    }
    let mut tokens = Vec::new();
    for id in 0..count {
        let length = scan.count()?;
        if length > LONGEST {
            return Err(format!("token {id} has {length} bytes: at most {LONGEST} are allowed"));
        }
        tokens.push(scan.take(length)?.to_vec());
    }
    Ok(Header { parameters, tokens })
}

/// Name, number of ggml's type, shape.
fn tensor(scan: &mut Scan<'_>) -> Result<(String, u32, Vec<usize>), String> {
    let (dimensions, length, kind) = (scan.count()?, scan.count()?, scan.u32()?);
    if !(1..=4).contains(&dimensions) || length > LONGEST_NAME {
        return Err(format!(
            "a tensor has {dimensions} dimensions and a name of {length} bytes: 1 to 4 and up to {LONGEST_NAME} are allowed"
        ));
    }
    let mut shape = (0..dimensions).map(|_| scan.count()).collect::<Result<Vec<_>, _>>()?;
    shape.reverse();
    Ok((String::from_utf8_lossy(scan.take(length)?).into_owned(), kind, shape))
}

pub(super) fn read(file: &str, bytes: Bytes) -> Result<(Source, Store), ModelError> {
    let mut store = Store::new(file, bytes);
    let mut scan = Scan::new(store.bytes());
    let header = header(&mut scan).map_err(|e| store.corrupt(e))?;
    let mut entries: Vec<(String, Entry)> = Vec::new();
    while scan.left() > 0 {
        if entries.len() == MOST_TENSORS {
            return Err(store.corrupt(format!("it holds more than {MOST_TENSORS} tensors")));
        }
        let (theirs, kind, mut shape) = tensor(&mut scan).map_err(|e| store.corrupt(e))?;
        let form = Form::from_ggml(kind).map_err(|found| ModelError::Form { name: theirs.clone(), found })?;
        let name = name(&theirs).unwrap_or(theirs);
        if name.ends_with(".bias") && shape.len() == 2 && shape[1] == 1 {
            // A convolution's, which whisper.cpp adds to every column.
            shape.pop();
        }
        let offset = scan.position();
        let size = form.stored(&shape).unwrap_or(usize::MAX);
        entries.push((name.clone(), store.entry(&name, Ok(form), shape, offset)?));
        scan.skip(size).map_err(|e| store.corrupt(e))?;
    }
    for (name, entry) in entries {
        store.insert(&name, entry)?;
    }
    Ok((source(&store, header)?, store))
}

fn source(store: &Store, header: Header) -> Result<Source, ModelError> {
    let [
        vocabulary,
        audio_positions,
        width,
        audio_heads,
        audio_layers,
        text_positions,
        text_width,
        text_heads,
        text_layers,
        bands,
        _form,
    ] = header.parameters;
    let special = openai::special(vocabulary).ok_or_else(|| ModelError::Config {
        field: "vocab_size",
        value: vocabulary.to_string(),
        allowed: format!("in a ggml file one of {:?}", openai::VOCABULARIES),
    })?;
    if text_width != width {
        let reason = format!("its encoder is {width} wide and its decoder {text_width}: no Whisper is so");
        return Err(store.corrupt(reason));
    }
    let end = special[0].0;
    let text = Ranks::new(header.tokens.into_iter().take(end as usize));
    let mut suppressed = openai::non_speech(&text);
    let steering = special
        .iter()
        .filter(|(_, name)| ["startof", "trans", "nospeech"].iter().any(|part| name[2..].starts_with(part)));
    suppressed.extend(steering.map(|(id, _)| id));
    let first = openai::blank(&text, end);
    let config = json!({
        "architectures": ["WhisperForConditionalGeneration"], "model_type": "whisper", "vocab_size": vocabulary,
        "num_mel_bins": bands, "d_model": width, "encoder_layers": audio_layers, "decoder_layers": text_layers,
        "encoder_attention_heads": audio_heads, "decoder_attention_heads": text_heads,
        "encoder_ffn_dim": width.saturating_mul(4), "decoder_ffn_dim": width.saturating_mul(4),
        "max_source_positions": audio_positions, "max_target_positions": text_positions, "scale_embedding": false,
        "bos_token_id": end, "eos_token_id": end, "decoder_start_token_id": end + 1,
        "suppress_tokens": suppressed, "begin_suppress_tokens": first,
    });
    Ok(Source { config: config.to_string(), generation: None, tokenizer: text.tokenizer(&special) })
}
