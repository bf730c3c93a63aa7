//! How weights are stored.
//!
//! In: nothing. Out: [`Form`], its sizes and its name.

/// How weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Form {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of IEEE single precision.
    Bf16,
    /// GGML's `Q8_0`: blocks of 32 signed bytes under one half-precision scale, 34 bytes each.
    Q8_0,
    /// GGML's `Q4_0`: blocks of 32 times 4 bits, less 8, under one scale, 18 bytes each.
    Q4_0,
    /// GGML's `Q4_1`: blocks of 32 times 4 bits under one scale and above one minimum, 20 bytes each.
    Q4_1,
    /// GGML's `Q5_0`: blocks of 32 times 5 bits, less 16, under one scale, 22 bytes each.
    Q5_0,
    /// GGML's `Q5_1`: blocks of 32 times 5 bits under one scale and above one minimum, 24 bytes each.
    Q5_1,
    /// CTranslate2's `int8`: a row is the single-precision number that its weights were multiplied by, then signed
    /// bytes. In the file the numbers of all rows are a tensor of their own.
    Int8,
}

/// Weights of one block of the forms in blocks.
pub(crate) const BLOCK: usize = 32;

/// What is read, for messages.
pub(crate) const FORMS: &str = "f32, f16, bf16 are read, and for matrices q8_0, q5_1, q5_0, q4_1, q4_0 and int8";

impl Form {
    /// Bytes of a block of 32 weights; `None` for a form without blocks.
    pub(crate) const fn block(self) -> Option<usize> {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 | Self::Int8 => None,
            Self::Q8_0 => Some(34),
            Self::Q4_0 => Some(18),
            Self::Q4_1 => Some(20),
            Self::Q5_0 => Some(22),
            Self::Q5_1 => Some(24),
        }
    }

    /// Bytes of a row of `weights` contiguous weights; a form in blocks takes whole blocks.
    #[must_use]
    pub const fn bytes(self, weights: usize) -> usize {
        match self {
            Self::F32 => weights * 4,
            Self::F16 | Self::Bf16 => weights * 2,
            Self::Int8 => weights + 4,
            Self::Q8_0 => weights / BLOCK * 34,
            Self::Q4_0 => weights / BLOCK * 18,
            Self::Q4_1 => weights / BLOCK * 20,
            Self::Q5_0 => weights / BLOCK * 22,
            Self::Q5_1 => weights / BLOCK * 24,
        }
    }

    /// As written in messages and by `general.file_type`'s names.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
            Self::Q4_1 => "q4_1",
            Self::Q5_0 => "q5_0",
            Self::Q5_1 => "q5_1",
            Self::Int8 => "int8",
        }
    }

    /// The form with this number among ggml's types (`enum ggml_type`, ggml.h), or what it is called.
    pub(super) fn from_ggml(kind: u32) -> Result<Self, String> {
        Ok(match kind {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            30 => Self::Bf16,
            10 => return Err("q2_k".to_string()),
            11 => return Err("q3_k".to_string()),
            12 => return Err("q4_k".to_string()),
            13 => return Err("q5_k".to_string()),
            14 => return Err("q6_k".to_string()),
            15 => return Err("q8_k".to_string()),
            kind => return Err(format!("ggml type {kind}")),
        })
    }

    /// The number of a form among ggml's types; `None` for what is not ggml's.
    pub(crate) const fn ggml(self) -> Option<u32> {
        Some(match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q5_0 => 6,
            Self::Q5_1 => 7,
            Self::Q8_0 => 8,
            Self::Bf16 => 30,
            Self::Int8 => return None,
        })
    }

    /// Bytes that a tensor of this shape takes in a file, or `None` where they overflow or blocks do not fit its rows.
    pub(super) fn stored(self, shape: &[usize]) -> Option<usize> {
        let weights = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
        if self.block().is_some() && !shape.last()?.is_multiple_of(BLOCK) {
            return None;
        }
        // Room for what the weights become in memory, and for a scale a row.
        weights.checked_mul(8)?;
        Some(if self == Self::Int8 { weights } else { self.bytes(weights) })
    }
}
