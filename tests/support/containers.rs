//! A small Whisper with random weights and OpenAI's vocabulary sizes, written in every container that is read.
//!
//! In: sizes. Out: files. The writers follow the programs that write such files: transformers (safetensors), candle
//! (`gguf_file::write`), whisper.cpp (`models/convert-pt-to-ggml.py`) and CTranslate2 (`specs/model_spec.py`).

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;

use candle_core::quantized::{GgmlDType, QTensor, gguf_file};
use candle_core::{Device, Tensor};
use half::{bf16, f16};
use serde_json::{Map, Value, json};

/// How weights are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    F32,
    F16,
    Bf16,
    /// ggml's blocks, for matrices.
    Blocks(GgmlDType),
    /// CTranslate2's rows, for matrices and convolutions.
    Int8,
}

/// Sizes that differ within the family.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) vocabulary: usize,
    pub(crate) bands: usize,
    pub(crate) encoder_layers: usize,
    pub(crate) decoder_layers: usize,
    pub(crate) width: usize,
}

pub(crate) const ENGLISH: Sizes =
    Sizes { vocabulary: 51_864, bands: 80, encoder_layers: 2, decoder_layers: 2, width: 64 };
pub(crate) const MULTILINGUAL: Sizes = Sizes { vocabulary: 51_865, ..ENGLISH };
/// As large-v3-turbo: one language more, finer bands, fewer layers in the decoder.
pub(crate) const TURBO: Sizes =
    Sizes { vocabulary: 51_866, bands: 128, encoder_layers: 3, decoder_layers: 1, width: 64 };

const POSITIONS: usize = 64;
const HEADS: usize = 2;

/// A name, a shape, weights.
type Weights = (String, Vec<usize>, Vec<f32>);

pub(crate) struct Checkpoint {
    pub(crate) sizes: Sizes,
    /// Under Hugging Face's names; every weight is a half-precision number.
    pub(crate) tensors: Vec<Weights>,
    /// Bytes and merges of them, in the order of their ids.
    tokens: Vec<Vec<u8>>,
}

fn random(state: &mut u32) -> f32 {
    *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    (*state >> 8) as f32 / (1 << 23) as f32 - 1.0
}

/// As many tokens of text as have a text here; OpenAI's have fifty thousand.
const TEXTS: usize = 2000;

fn tokens() -> Vec<Vec<u8>> {
    // The order of bytes: openai/gpt-2, `bytes_to_unicode`.
    let first = (33..=126).chain(161..=172).chain(174..=255);
    let mut tokens: Vec<Vec<u8>> = first.chain(0..=32).chain(127..=160).chain([173]).map(|byte| vec![byte]).collect();
    let mut known: HashSet<Vec<u8>> = tokens.iter().cloned().collect();
    let mut state = 3;
    // Letters and spaces, so that they are texts.
    let mut pieces: Vec<Vec<u8>> = (b'a'..=b'z').chain([b' ', b'-', b'(', b'"']).map(|byte| vec![byte]).collect();
    while tokens.len() < TEXTS {
        let mut pick =
            || pieces[((random(&mut state) + 1.0) / 2.0 * pieces.len() as f32) as usize % pieces.len()].clone();
        let token = [pick(), pick()].concat();
        if token.len() <= 12 && known.insert(token.clone()) {
            pieces.push(token.clone());
            tokens.push(token);
        }
    }
    tokens
}

impl Checkpoint {
    pub(crate) fn new(sizes: Sizes) -> Self {
        let (width, hidden) = (sizes.width, 4 * sizes.width);
        let mut tensors: Vec<Weights> = Vec::new();
        let mut state = 5;
        let mut add = |name: String, shape: &[usize], mean: f32, scale: f32| {
            let mut value = |at: usize| {
                // Tokens that have a text come first.
                let louder = if name.contains("embed_tokens") && at < TEXTS * width { 4.0 } else { 1.0 };
                f16::from_f32(mean + scale * louder * random(&mut state)).to_f32()
            };
            let values = (0..shape.iter().product()).map(&mut value).collect();
            tensors.push((name, shape.to_vec(), values));
        };
        for (part, layers) in [("encoder", sizes.encoder_layers), ("decoder", sizes.decoder_layers)] {
            let part_name = format!("model.{part}");
            add(format!("{part_name}.embed_positions.weight"), &[POSITIONS, width], 0.0, 0.5);
            let mut norm = |name: &str| {
                add(format!("{name}.weight"), &[width], 1.0, 0.1);
                add(format!("{name}.bias"), &[width], 0.0, 0.1);
            };
            norm(&format!("{part_name}.layer_norm"));
            let attentions: &[&str] = if part == "encoder" { &["self_attn"] } else { &["self_attn", "encoder_attn"] };
            for layer in 0..layers {
                let name = format!("{part_name}.layers.{layer}");
                for attention in attentions {
                    add(format!("{name}.{attention}_layer_norm.weight"), &[width], 1.0, 0.1);
                    add(format!("{name}.{attention}_layer_norm.bias"), &[width], 0.0, 0.1);
                }
                add(format!("{name}.final_layer_norm.weight"), &[width], 1.0, 0.1);
                // The same in all layers: CTranslate2 writes such once.
                add(format!("{name}.final_layer_norm.bias"), &[width], 0.125, 0.0);
                let mut linear = |name: String, shape: &[usize]| {
                    add(format!("{name}.weight"), shape, 0.0, 0.3);
                    if !name.ends_with("k_proj") {
                        add(format!("{name}.bias"), &shape[..1], 0.0, 0.1);
                    }
                };
                for attention in attentions {
                    for projection in ["q", "k", "v", "out"] {
                        linear(format!("{name}.{attention}.{projection}_proj"), &[width, width]);
                    }
                }
                linear(format!("{name}.fc1"), &[hidden, width]);
                linear(format!("{name}.fc2"), &[width, hidden]);
            }
        }
        for (conv, channels) in [("conv1", sizes.bands), ("conv2", width)] {
            add(format!("model.encoder.{conv}.weight"), &[width, channels, 3], 0.0, 0.2);
            add(format!("model.encoder.{conv}.bias"), &[width], 0.0, 0.1);
        }
        add("model.decoder.embed_tokens.weight".to_string(), &[sizes.vocabulary, width], 0.0, 0.1);
        Self { sizes, tensors, tokens: tokens() }
    }

    fn get(&self, name: &str) -> &Weights {
        self.tensors.iter().find(|(known, ..)| known == name).unwrap_or_else(|| panic!("no {name}"))
    }

    pub(crate) fn config(&self) -> Value {
        let Sizes { vocabulary, bands, encoder_layers, decoder_layers, width } = self.sizes;
        json!({
            "vocab_size": vocabulary, "num_mel_bins": bands, "d_model": width, "encoder_layers": encoder_layers,
            "decoder_layers": decoder_layers, "encoder_attention_heads": HEADS, "decoder_attention_heads": HEADS,
            "encoder_ffn_dim": 4 * width, "decoder_ffn_dim": 4 * width, "max_source_positions": POSITIONS,
            "max_target_positions": POSITIONS, "suppress_tokens": [-1], "begin_suppress_tokens": [-1],
        })
    }

    /// The end of text, and the names of the tokens from there on, timestamps included.
    fn special(&self) -> (usize, Vec<String>) {
        let languages = "en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th ur \
            hr bg lt la mi ml cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr pa si km sn yo so \
            af oc ka be tg sd gu am yi lo uz fo ht ps tk nn mt sa lb my bo tl mg as tt haw ln ha ba jw su yue";
        let count = if self.sizes.vocabulary == 51_866 { 100 } else { 99 };
        let names = ["endoftext", "startoftranscript"].into_iter().chain(languages.split(' ').take(count)).chain([
            "translate",
            "transcribe",
            "startoflm",
            "startofprev",
            "nospeech",
            "notimestamps",
        ]);
        let times = (0..1501).map(|i| format!("<|{}.{:02}|>", i / 50, i % 50 * 2));
        let names: Vec<String> = names.map(|name| format!("<|{name}|>")).chain(times).collect();
        (self.sizes.vocabulary - names.len(), names)
    }

    /// Each token as `tokenizer.json` has it.
    fn texts(&self) -> Vec<String> {
        // The byte with the place n in the order is the character of itself, or from U+0100 on.
        let order: Vec<u8> = self.tokens[..256].iter().map(|token| token[0]).collect();
        let character = |byte: u8| {
            let place = order.iter().position(|known| *known == byte).unwrap() as u32;
            char::from_u32(if place < 188 { u32::from(byte) } else { 256 + place - 188 }).unwrap()
        };
        self.tokens.iter().map(|token| token.iter().map(|byte| character(*byte)).collect()).collect()
    }

    pub(crate) fn tokenizer(&self) -> Value {
        let vocab: Map<String, Value> = self.texts().into_iter().zip(0..).map(|(text, id)| (text, json!(id))).collect();
        let (end, names) = self.special();
        let names = names.into_iter().take_while(|name| name != "<|0.00|>");
        let added = (end..).zip(names).map(|(id, content)| json!({"id": id, "content": content, "special": true}));
        json!({
            "added_tokens": added.collect::<Vec<_>>(), "model": {"type": "BPE", "vocab": vocab, "merges": []},
        })
    }

    /// The texts of a Hugging Face folder.
    pub(crate) fn write_texts(&self, folder: &Path, variant: &str) {
        fs::write(folder.join(format!("config{variant}.json")), self.config().to_string()).unwrap();
        fs::write(folder.join(format!("tokenizer{variant}.json")), self.tokenizer().to_string()).unwrap();
    }

    /// A Hugging Face folder, its weights in so many files.
    pub(crate) fn write_folder(&self, folder: &Path, form: Form, shards: usize) {
        self.write_texts(folder, "");
        let mut index = BTreeMap::new();
        for (shard, tensors) in self.tensors.chunks(self.tensors.len().div_ceil(shards)).enumerate() {
            let (mut header, mut data) = (Map::new(), Vec::new());
            let name = match shards {
                1 => "model.safetensors".to_string(),
                _ => format!("model-{:05}-of-{shards:05}.safetensors", shard + 1),
            };
            for (tensor, shape, values) in tensors {
                let start = data.len();
                data.extend(floats(values, form));
                let kind =
                    ["F32", "F16", "BF16"][[Form::F32, Form::F16, Form::Bf16].iter().position(|f| *f == form).unwrap()];
                header.insert(
                    tensor.clone(),
                    json!({"dtype": kind, "shape": shape, "data_offsets": [start, data.len()]}),
                );
                index.insert(tensor.clone(), name.clone());
            }
            let header = serde_json::to_vec(&header).unwrap();
            let file = [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat();
            fs::write(folder.join(name), file).unwrap();
        }
        if shards > 1 {
            let index = json!({"metadata": {}, "weight_map": index});
            fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
        }
    }

    /// A GGUF file as candle publishes them: weights alone. Its tool packs every matrix, that of positions too.
    pub(crate) fn write_candle(&self, path: &Path, form: Form, positions: bool) {
        let tensors: Vec<(&str, QTensor)> = self
            .tensors
            .iter()
            .map(|(name, shape, values)| {
                let kind = match form {
                    Form::Blocks(kind) if shape.len() == 2 && (positions || !name.contains("positions")) => kind,
                    Form::F32 => GgmlDType::F32,
                    _ if shape.len() == 1 => GgmlDType::F32,
                    _ => GgmlDType::F16,
                };
                let tensor = Tensor::from_slice(values, shape.as_slice(), &Device::Cpu).unwrap();
                (name.as_str(), QTensor::quantize(&tensor, kind).unwrap())
            })
            .collect();
        let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
        gguf_file::write(&mut fs::File::create(path).unwrap(), &[], &tensors).unwrap();
    }

    /// whisper.cpp's file.
    pub(crate) fn ggml(&self, form: Form) -> Vec<u8> {
        let Sizes { vocabulary, bands, encoder_layers, decoder_layers, width } = self.sizes;
        let int = |v: usize| (v as u32).to_le_bytes();
        let mut out = 0x6767_6d6cu32.to_le_bytes().to_vec();
        for v in
            [vocabulary, POSITIONS, width, HEADS, encoder_layers, POSITIONS, width, HEADS, decoder_layers, bands, 1]
        {
            out.extend(int(v));
        }
        out.extend([int(bands), int(201)].concat());
        out.extend(vec![0; bands * 201 * 4]);
        out.extend(int(self.tokens.len()));
        for token in &self.tokens {
            out.extend(int(token.len()));
            out.extend(token);
        }
        for (name, shape, values) in &self.tensors {
            let (kind, data) = match form {
                _ if shape.len() == 1 || name.contains("positions") => (0, floats(values, Form::F32)),
                Form::Blocks(kind) if shape.len() == 2 => {
                    let tensor = Tensor::from_slice(values, shape.as_slice(), &Device::Cpu).unwrap();
                    let stored = QTensor::quantize(&tensor, kind).unwrap();
                    let number = match kind {
                        GgmlDType::Q4_0 => 2,
                        GgmlDType::Q4_1 => 3,
                        GgmlDType::Q5_0 => 6,
                        GgmlDType::Q5_1 => 7,
                        GgmlDType::Q2K => 10,
                        GgmlDType::Q3K => 11,
                        GgmlDType::Q4K => 12,
                        GgmlDType::Q5K => 13,
                        GgmlDType::Q6K => 14,
                        _ => 8,
                    };
                    (number, stored.data().unwrap().to_vec())
                }
                Form::F32 => (0, floats(values, Form::F32)),
                _ => (1, floats(values, Form::F16)),
            };
            let name = ggml_name(name);
            let shape = if name.contains("conv") && shape.len() == 1 { vec![shape[0], 1] } else { shape.clone() };
            out.extend([int(shape.len()), int(name.len()), int(kind)].concat());
            shape.iter().rev().for_each(|d| out.extend(int(*d)));
            out.extend(name.as_bytes());
            out.extend(data);
        }
        out
    }

    /// CTranslate2's `model.bin`.
    pub(crate) fn ct2(&self, form: Form) -> Vec<u8> {
        self.ct2_with(form, 0)
    }

    /// The same, with so many further names for its largest tensor.
    pub(crate) fn ct2_with(&self, form: Form, names: usize) -> Vec<u8> {
        let mut variables: Vec<Weights> = Vec::new();
        let Sizes { width, .. } = self.sizes;
        let mut put = |name: String, parts: &[String]| {
            let parts: Vec<&Weights> = parts.iter().map(|part| self.get(part)).collect();
            let mut shape = parts[0].1.clone();
            shape[0] = parts.iter().map(|part| part.1[0]).sum();
            variables.push((name, shape, parts.iter().flat_map(|part| part.2.clone()).collect()));
        };
        let mut keys = Vec::new();
        for (part, layers) in [("encoder", self.sizes.encoder_layers), ("decoder", self.sizes.decoder_layers)] {
            let mut norm = |theirs: String, ours: String| {
                put(format!("{theirs}/gamma"), &[format!("{ours}.weight")]);
                put(format!("{theirs}/beta"), &[format!("{ours}.bias")]);
            };
            let ours = format!("model.{part}");
            norm(format!("{part}/layer_norm"), format!("{ours}.layer_norm"));
            let mut linears = Vec::new();
            for i in 0..layers {
                let (theirs, ours) = (format!("{part}/layer_{i}"), format!("{ours}.layers.{i}"));
                norm(format!("{theirs}/self_attention/layer_norm"), format!("{ours}.self_attn_layer_norm"));
                norm(format!("{theirs}/ffn/layer_norm"), format!("{ours}.final_layer_norm"));
                linears.push((format!("{theirs}/self_attention/linear_0"), "qkv", format!("{ours}.self_attn")));
                linears.push((format!("{theirs}/self_attention/linear_1"), "o", format!("{ours}.self_attn")));
                if part == "decoder" {
                    norm(format!("{theirs}/attention/layer_norm"), format!("{ours}.encoder_attn_layer_norm"));
                    linears.push((format!("{theirs}/attention/linear_0"), "q", format!("{ours}.encoder_attn")));
                    linears.push((format!("{theirs}/attention/linear_1"), "kv", format!("{ours}.encoder_attn")));
                    linears.push((format!("{theirs}/attention/linear_2"), "o", format!("{ours}.encoder_attn")));
                }
                linears.push((format!("{theirs}/ffn/linear_0"), "", format!("{ours}.fc1")));
                linears.push((format!("{theirs}/ffn/linear_1"), "", format!("{ours}.fc2")));
            }
            for (theirs, parts, ours) in linears {
                let parts: Vec<String> = match parts {
                    "" => vec![ours],
                    parts => parts
                        .chars()
                        .map(|c| format!("{ours}.{}_proj", if c == 'o' { "out".into() } else { c.to_string() }))
                        .collect(),
                };
                let leaf = |leaf: &str| parts.iter().map(|part| format!("{part}.{leaf}")).collect::<Vec<_>>();
                put(format!("{theirs}/weight"), &leaf("weight"));
                keys.push((format!("{theirs}/bias"), leaf("bias")));
            }
            put(format!("{part}/position_encodings/encodings"), &[format!("{ours}.embed_positions.weight")]);
        }
        for conv in ["conv1", "conv2"] {
            put(format!("encoder/{conv}/weight"), &[format!("model.encoder.{conv}.weight")]);
            put(format!("encoder/{conv}/bias"), &[format!("model.encoder.{conv}.bias")]);
        }
        put("decoder/embeddings/weight".to_string(), &["model.decoder.embed_tokens.weight".to_string()]);
        for (theirs, parts) in keys {
            // Keys have no bias: zeros stand there.
            let part = |name: &String| match name.ends_with("k_proj.bias") {
                true => vec![0.0; width],
                false => self.get(name).2.clone(),
            };
            let values: Vec<f32> = parts.iter().flat_map(part).collect();
            variables.push((theirs, vec![values.len()], values));
        }
        variables.sort_by(|a, b| a.0.cmp(&b.0));
        // What is equal is written once, under its first name.
        let mut aliases = vec![("decoder/projection/weight".to_string(), "decoder/embeddings/weight".to_string())];
        for i in (0..variables.len()).rev() {
            if let Some(first) =
                variables[..i].iter().find(|first| first.1 == variables[i].1 && first.2 == variables[i].2)
            {
                aliases.push((variables[i].0.clone(), first.0.clone()));
                variables.remove(i);
            }
        }
        assert!(aliases.len() > 2 || self.sizes.encoder_layers + self.sizes.decoder_layers < 4);

        aliases.extend((0..names).map(|i| (format!("name_{i}"), "decoder/embeddings/weight".to_string())));

        let mut all: Vec<(String, Vec<usize>, u8, Vec<u8>)> = Vec::new();
        for (name, shape, values) in variables {
            if form == Form::Int8 && name.ends_with("/weight") {
                let (scales, bytes) = int8(&values, shape[0]);
                all.push((format!("{name}_scale"), vec![shape[0]], 0, floats(&scales, Form::F32)));
                all.push((name, shape, 1, bytes.iter().map(|b| *b as u8).collect()));
            } else {
                let kind = match form {
                    Form::F16 => 4,
                    Form::Bf16 => 5,
                    _ => 0,
                };
                let form = if form == Form::Int8 { Form::F32 } else { form };
                all.push((name, shape, kind, floats(&values, form)));
            }
        }
        for part in ["encoder", "decoder"] {
            all.push((format!("{part}/num_heads"), vec![], 2, (HEADS as u16).to_le_bytes().to_vec()));
        }
        all.push(("decoder/pre_norm".to_string(), vec![], 1, vec![1]));
        let text = |text: &str| [&(text.len() as u16 + 1).to_le_bytes()[..], text.as_bytes(), &[0]].concat();
        let int = |v: usize| (v as u32).to_le_bytes();
        let mut out = [&int(6)[..], &text("WhisperSpec"), &int(3), &int(all.len())].concat();
        for (name, shape, kind, data) in all {
            out.extend(text(&name));
            out.push(shape.len() as u8);
            shape.iter().for_each(|d| out.extend(int(*d)));
            out.push(kind);
            out.extend(int(data.len()));
            out.extend(data);
        }
        out.extend(int(aliases.len()));
        for (alias, name) in aliases {
            out.extend([text(&alias), text(&name)].concat());
        }
        out
    }

    /// CTranslate2's `vocabulary.json` or `vocabulary.txt`, as long as the model's, and no `tokenizer.json`.
    pub(crate) fn vocabulary(&self, json: bool) -> String {
        let (end, names) = self.special();
        let mut texts = self.texts();
        texts.extend((texts.len()..end).map(|_| String::new()));
        texts.extend(names);
        if json { json!(texts).to_string() } else { texts.join("\n") + "\n" }
    }

    /// The weights as CTranslate2's int8 leaves them.
    pub(crate) fn rounded(&self) -> Self {
        let round = |(name, shape, values): &Weights| {
            if shape.len() == 1 || name.contains("positions") {
                return (name.clone(), shape.clone(), values.clone());
            }
            let (scales, bytes) = int8(values, shape[0]);
            let columns = values.len() / shape[0];
            let values = bytes.iter().enumerate().map(|(i, b)| f32::from(*b) / scales[i / columns]).collect();
            (name.clone(), shape.clone(), values)
        };
        Self { sizes: self.sizes, tensors: self.tensors.iter().map(round).collect(), tokens: self.tokens.clone() }
    }
}

fn floats(values: &[f32], form: Form) -> Vec<u8> {
    match form {
        Form::F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
        Form::Bf16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
    }
}

/// `model_spec.py`, `_quantize`: a row times 127 / its largest magnitude.
fn int8(values: &[f32], rows: usize) -> (Vec<f32>, Vec<i8>) {
    let row = |row: &[f32]| 127.0 / row.iter().fold(0.0f32, |a, v| a.max(v.abs()));
    let scales: Vec<f32> = values.chunks(values.len() / rows).map(row).collect();
    let bytes = values.iter().enumerate().map(|(i, v)| (v * scales[i / (values.len() / rows)]).round_ties_even() as i8);
    let bytes = bytes.collect();
    (scales, bytes)
}

fn ggml_name(name: &str) -> String {
    let name = name.strip_prefix("model.").unwrap();
    let ln = if name.starts_with("encoder") { "encoder.ln_post" } else { "decoder.ln" };
    if let Some((_, leaf)) = name.split_once("coder.layer_norm.") {
        return format!("{ln}.{leaf}");
    }
    name.replace("embed_positions.weight", "positional_embedding")
        .replace("embed_tokens", "token_embedding")
        .replace(".layers.", ".blocks.")
        .replace("encoder_attn", "cross_attn")
        .replace("self_attn", "attn")
        .replace("final_layer_norm", "mlp_ln")
        .replace("attn_layer_norm", "attn_ln")
        .replace(".q_proj", ".query")
        .replace(".k_proj", ".key")
        .replace(".v_proj", ".value")
        .replace(".out_proj", ".out")
        .replace(".fc1.", ".mlp.0.")
        .replace(".fc2.", ".mlp.2.")
}
