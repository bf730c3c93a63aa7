//! A tiny Whisper with random weights, for tests that need a model but not its sense.
//!
//! In: a seed and sizes. Out: a GGUF file in memory, complete with configuration and tokenizer.
//! Not part of the promised interface.

use super::convert::write_gguf;
use super::error::ModelError;
use super::kernels::{
    self, Activations, AttentionScratch, Finish, Floats, Keys, LANES, Layout, Level, Packed, Packing,
};
use super::load::{CONFIG_KEY, Form, GENERATION_KEY, TOKENIZER_KEY};

/// What the random model is like. `Default` decodes 1.28 s and takes about 300 kB.
#[derive(Clone, Copy, Debug)]
pub struct RandomModel {
    /// Of the weights.
    pub seed: u32,
    /// Whether its language tokens count.
    pub multilingual: bool,
    /// Positions of its window, 20 ms each.
    pub positions: usize,
    /// Magnitude of the linear layers' weights.
    pub scale: f32,
}

impl Default for RandomModel {
    fn default() -> Self {
        Self { seed: 1, multilingual: true, positions: 64, scale: 0.2 }
    }
}

const WIDTH: usize = 32;
const LAYERS: usize = 2;
const BANDS: usize = 80;

impl RandomModel {
    /// The tensors: name, shape, and the values' mean.
    #[must_use]
    pub fn tensors(&self) -> Vec<(String, Vec<usize>, f32)> {
        let mut all = Vec::new();
        let mut add = |name: String, shape: &[usize], mean: f32| all.push((name, shape.to_vec(), mean));
        for (part, positions) in [("encoder", self.positions), ("decoder", 64)] {
            add(format!("model.{part}.embed_positions.weight"), &[positions, WIDTH], 0.0);
            add(format!("model.{part}.layer_norm.weight"), &[WIDTH], 1.0);
            add(format!("model.{part}.layer_norm.bias"), &[WIDTH], 0.0);
            for layer in 0..LAYERS {
                let name = format!("model.{part}.layers.{layer}");
                let attentions: &[&str] =
                    if part == "encoder" { &["self_attn"] } else { &["self_attn", "encoder_attn"] };
                for attention in attentions {
                    for linear in ["q", "k", "v", "out"] {
                        add(format!("{name}.{attention}.{linear}_proj.weight"), &[WIDTH, WIDTH], 0.0);
                        if linear != "k" {
                            add(format!("{name}.{attention}.{linear}_proj.bias"), &[WIDTH], 0.0);
                        }
                    }
                    add(format!("{name}.{attention}_layer_norm.weight"), &[WIDTH], 1.0);
                    add(format!("{name}.{attention}_layer_norm.bias"), &[WIDTH], 0.0);
                }
                for (linear, shape) in [("fc1", [4 * WIDTH, WIDTH]), ("fc2", [WIDTH, 4 * WIDTH])] {
                    add(format!("{name}.{linear}.weight"), &shape, 0.0);
                    add(format!("{name}.{linear}.bias"), &shape[..1], 0.0);
                }
                add(format!("{name}.final_layer_norm.weight"), &[WIDTH], 1.0);
                add(format!("{name}.final_layer_norm.bias"), &[WIDTH], 0.0);
            }
        }
        for (conv, channels) in [("conv1", BANDS), ("conv2", WIDTH)] {
            add(format!("model.encoder.{conv}.weight"), &[WIDTH, channels, 3], 0.0);
            add(format!("model.encoder.{conv}.bias"), &[WIDTH], 0.0);
        }
        add("model.decoder.embed_tokens.weight".to_string(), &[self.vocabulary(), WIDTH], 0.0);
        all
    }

    /// Tokens: 94 of printable ASCII, then those that steer, then timestamps.
    #[must_use]
    pub fn vocabulary(&self) -> usize {
        94 + self.special().len() + 8
    }

    fn special(&self) -> Vec<String> {
        let mut names = vec!["endoftext", "startoftranscript"];
        names.extend(["en", "fr", "de", "translate", "transcribe", "startoflm", "startofprev"]);
        names.extend(["nospeech", "notimestamps"]);
        names.into_iter().map(|name| format!("<|{name}|>")).collect()
    }

    /// `config.json`.
    #[must_use]
    pub fn config(&self) -> serde_json::Value {
        serde_json::json!({
            "vocab_size": self.vocabulary(), "num_mel_bins": BANDS, "d_model": WIDTH,
            "encoder_layers": LAYERS, "decoder_layers": LAYERS,
            "encoder_attention_heads": 2, "decoder_attention_heads": 2,
            "encoder_ffn_dim": 4 * WIDTH, "decoder_ffn_dim": 4 * WIDTH,
            "max_source_positions": self.positions, "max_target_positions": 64,
            "suppress_tokens": [1, 2], "begin_suppress_tokens": [3, 94],
        })
    }

    /// `tokenizer.json`.
    #[must_use]
    pub fn tokenizer(&self) -> serde_json::Value {
        let characters = ('!'..='~').enumerate().map(|(id, c)| (c.to_string(), serde_json::json!(id)));
        let vocabulary: serde_json::Map<String, serde_json::Value> = characters.collect();
        let added: Vec<serde_json::Value> = (94..)
            .zip(self.special())
            .map(|(id, content): (u32, String)| {
                serde_json::json!({
                    "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": true,
                })
            })
            .collect();
        serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
            "pre_tokenizer": null, "post_processor": null,
            "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
            "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocabulary, "merges": []},
        })
    }

    /// The values of a tensor: random, but the encoder's positions are sines and cosines, as every Whisper's are.
    #[must_use]
    pub fn values(&self, name: &str, shape: &[usize], mean: f32) -> Vec<f32> {
        if name == "model.encoder.embed_positions.weight" {
            let half = WIDTH / 2;
            let angle = |at: usize, i: usize| at as f64 * (-(1e4f64.ln()) / (half - 1) as f64 * i as f64).exp();
            return (0..self.positions)
                .flat_map(|at| {
                    (0..WIDTH).map(move |i| if i < half { angle(at, i).sin() } else { angle(at, i - half).cos() })
                })
                .map(|v| v as f32)
                .collect();
        }
        let state = name.bytes().fold(self.seed, |s, b| s.wrapping_mul(31).wrapping_add(u32::from(b)));
        let scale = if shape.len() == 1 { 0.05 } else { self.scale };
        noise(shape.iter().product(), state, scale).into_iter().map(|value| mean + value).collect()
    }

    /// The model as a GGUF file in f32.
    ///
    /// # Errors
    /// None that a vector can raise.
    pub fn gguf(&self) -> Result<Vec<u8>, ModelError> {
        let generation = format!("{{\"is_multilingual\": {}}}", self.multilingual);
        let (config, tokenizer) = (self.config().to_string(), self.tokenizer().to_string());
        let texts = [
            ("general.architecture", "whisper"),
            ("general.name", "random"),
            (CONFIG_KEY, config.as_str()),
            (GENERATION_KEY, generation.as_str()),
            (TOKENIZER_KEY, tokenizer.as_str()),
        ];
        let tensors = self.tensors();
        let listed: Vec<(&str, &[usize], Form)> =
            tensors.iter().map(|(name, shape, _)| (name.as_str(), shape.as_slice(), Form::F32)).collect();
        let mut out = Vec::new();
        write_gguf(&mut out, &texts, &listed, |index, out| {
            let (name, shape, mean) = &tensors[index];
            out.extend(self.values(name, shape, *mean).iter().flat_map(|v| v.to_le_bytes()));
            Ok(())
        })?;
        Ok(out)
    }
}

/// One kernel on random numbers, for benches.
pub struct Probe {
    level: Level,
    acts: Activations,
    packed: Packed,
    x: Vec<f32>,
    out: Vec<f32>,
    /// Keys and values, and how many.
    blocks: Floats,
    keys: usize,
    attention: AttentionScratch,
}

/// Which kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// 8 bits with scales a row: the encoder's.
    Rows,
    /// 8 bits with scales a block: the decoder's.
    Blocks,
    /// Single precision.
    Float,
}

/// Numbers within −`peak` … `peak` that look random.
#[must_use]
pub fn noise(count: usize, seed: u32, peak: f32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        peak * ((state >> 8) as f32 / (1 << 23) as f32 - 1.0)
    };
    (0..count).map(|_| next()).collect()
}

impl Probe {
    /// A product of `rows` rows with weights `[outputs, inputs]`.
    #[must_use]
    pub fn new(kernel: Kernel, rows: usize, inputs: usize, outputs: usize) -> Self {
        let packing = match kernel {
            Kernel::Rows => Packing::Rows,
            Kernel::Blocks => Packing::Blocks,
            Kernel::Float => Packing::Float,
        };
        let mut packed = Packed::new(packing, outputs, inputs);
        for (tile, rows) in noise(inputs * outputs, 7, 1.0).chunks(LANES * inputs).enumerate() {
            packed.set_tile(tile, rows);
        }
        let (level, x) = (Level::detect(), noise(rows * inputs, 7, 1.0));
        let mut acts = Activations::default();
        acts.load(level, packing, &x, inputs, inputs);
        let out = vec![0.0; rows * outputs];
        Self { level, acts, packed, x, out, blocks: Floats::default(), keys: 0, attention: AttentionScratch::default() }
    }

    /// The product, its rows quantised already.
    pub fn product(&mut self) {
        kernels::product(self.level, &self.acts, &self.packed, None, Finish::Store, &mut self.out);
    }

    /// The same, through the GELU.
    pub fn product_gelu(&mut self) {
        kernels::product(self.level, &self.acts, &self.packed, None, Finish::Gelu, &mut self.out);
    }

    /// Quantises the rows.
    pub fn quantise(&mut self) {
        let inputs = self.packed.inputs;
        self.acts.load(self.level, self.packed.packing(), &self.x, inputs, inputs);
    }

    /// Layer norm of the rows.
    pub fn layer_norm(&mut self) {
        let inputs = self.packed.inputs;
        let weight = &self.x[..inputs];
        self.out.resize(self.x.len(), 0.0);
        kernels::layer_norm(self.level, &self.x, weight, weight, &mut self.out);
    }

    /// Files so many keys and values for [`Probe::attention`], in heads of 64, held as the weights are.
    pub fn file(&mut self, keys: usize) {
        let (width, layout) = (self.packed.inputs, self.layout());
        self.blocks = Floats::zeros(keys.div_ceil(LANES) * layout.block());
        self.keys = keys;
        let x = noise(keys * width, 7, 1.0);
        layout.file(self.level, &mut Activations::default(), &mut self.blocks, 0, &x, &x);
    }

    /// Attention of the rows over all keys.
    pub fn attention(&mut self) {
        let keys = [Keys { blocks: &self.blocks, count: self.keys, bias: &[] }];
        self.out.resize(self.x.len(), 0.0);
        kernels::attend(self.level, self.layout(), &self.x, &keys, &mut self.attention, &mut self.out, None);
    }

    fn layout(&self) -> Layout {
        Layout::new(self.packed.inputs, self.packed.inputs / 64, self.packed.packing())
    }
}

/// The name of the kernels' level on this processor.
#[must_use]
pub fn level() -> &'static str {
    Level::detect().name()
}

/// Does 8-bit operations in registers; how many.
#[must_use]
pub fn int8_peak() -> f64 {
    kernels::int8_peak(Level::detect(), 10_000)
}

/// Does float operations in registers; how many.
#[must_use]
pub fn float_peak() -> f64 {
    kernels::float_peak(Level::detect(), 10_000)
}
