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
    /// GGML's `Q2_K`: super-blocks of 256 weights in 2 bits, 84 bytes each.
    Q2K,
    /// GGML's `Q3_K`: super-blocks of 256 weights in 3 bits, 110 bytes each.
    Q3K,
    /// GGML's `Q4_K`: super-blocks of 256 weights in 4 bits, 144 bytes each.
    Q4K,
    /// GGML's `Q5_K`: super-blocks of 256 weights in 5 bits, 176 bytes each.
    Q5K,
    /// GGML's `Q6_K`: super-blocks of 256 weights in 6 bits, 210 bytes each.
    Q6K,
    /// CTranslate2's `int8`: a row is the single-precision number that its weights were multiplied by, then signed
    /// bytes. In the file the numbers of all rows are a tensor of their own.
    Int8,
}

/// Weights of one block of the forms in blocks.
pub(crate) const BLOCK: usize = 32;

/// What is read, for messages.
pub(crate) const FORMS: &str =
    "f32, f16, bf16 are read, and for matrices q8_0, q5_1, q5_0, q4_1, q4_0, q2_k to q6_k and int8";

impl Form {
    /// Weights and bytes of a block; `None` for a form without blocks.
    pub(crate) const fn block(self) -> Option<(usize, usize)> {
        Some(match self {
            Self::F32 | Self::F16 | Self::Bf16 | Self::Int8 => return None,
            Self::Q8_0 => (BLOCK, 34),
            Self::Q4_0 => (BLOCK, 18),
            Self::Q4_1 => (BLOCK, 20),
            Self::Q5_0 => (BLOCK, 22),
            Self::Q5_1 => (BLOCK, 24),
            Self::Q2K => (256, 84),
            Self::Q3K => (256, 110),
            Self::Q4K => (256, 144),
            Self::Q5K => (256, 176),
            Self::Q6K => (256, 210),
        })
    }

    /// Bytes of a row of `weights` contiguous weights; a form in blocks takes whole blocks.
    #[must_use]
    pub const fn bytes(self, weights: usize) -> usize {
        match (self, self.block()) {
            (_, Some((block, bytes))) => weights / block * bytes,
            (Self::F32, None) => weights * 4,
            (Self::Int8, None) => weights + 4,
            (_, None) => weights * 2,
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
            Self::Q2K => "q2_k",
            Self::Q3K => "q3_k",
            Self::Q4K => "q4_k",
            Self::Q5K => "q5_k",
            Self::Q6K => "q6_k",
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
            10 => Self::Q2K,
            11 => Self::Q3K,
            12 => Self::Q4K,
            13 => Self::Q5K,
            14 => Self::Q6K,
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
            Self::Q2K => 10,
            Self::Q3K => 11,
            Self::Q4K => 12,
            Self::Q5K => 13,
            Self::Q6K => 14,
            Self::Bf16 => 30,
            Self::Int8 => return None,
        })
    }

    /// Bytes that a tensor of this shape takes in a file, or `None` where they overflow or blocks do not fit its rows.
    pub(super) fn stored(self, shape: &[usize]) -> Option<usize> {
        let weights = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
        if let Some((block, _)) = self.block()
            && !shape.last()?.is_multiple_of(block)
        {
            return None;
        }
        // Room for what the weights become in memory, and for a scale a row.
        weights.checked_mul(8)?;
        Some(if self == Self::Int8 { weights } else { self.bytes(weights) })
    }
}
