//! The inner loops, compiled once for each level of instructions and chosen at run time.
//!
//! In: packed weights and rows of activations. Out: rows of activations.
//! Integer sums are the same on every level, bit for bit; floats on one level are the same whatever the number of rows
//! handled at a time and whoever handles them, since every row has its own sums in an order that only the sizes decide.

mod aligned;
mod attention;
mod dequantise;
mod float;
mod k_quants;
mod packed;
mod peak;
mod product;
mod simd;

pub(crate) use aligned::Floats;
pub(crate) use attention::{Keys, Layout, OnWeights, Scratch as AttentionScratch, attend};
pub(crate) use dequantise::{dequantise, half};
pub(crate) use float::{layer_norm, masked_max, masked_sum_exp};
pub(crate) use packed::{LANES, Packed, Packing};
pub(crate) use peak::{float_peak, int8_peak};
pub(crate) use product::{Activations, Finish, product, product_into};

/// Which compilation of the kernels runs. Made by [`Level::detect`] or [`Level::all`] only: to hold one is proof that the
/// processor has its instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Level(Instructions);

/// Levels, the best last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Instructions {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    /// The best that this processor has.
    pub(crate) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            if has!("avx2") && has!("fma") && has!("f16c") {
                if has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") && has!("avx512vnni") {
                    return Self(Instructions::Avx512);
                }
                return Self(if has!("avxvnni") { Instructions::AvxVnni } else { Instructions::Avx2 });
            }
        }
        Self(Instructions::Portable)
    }

    /// All that this processor has, the portable one first.
    #[cfg(test)]
    pub(crate) fn all() -> Vec<Self> {
        let mut all = vec![Self(Instructions::Portable)];
        #[cfg(target_arch = "x86_64")]
        {
            let best = Self::detect().0;
            let vnni = std::arch::is_x86_feature_detected!("avxvnni");
            let lower = [Instructions::Avx2, Instructions::AvxVnni, Instructions::Avx512].into_iter();
            all.extend(lower.filter(|&l| l <= best && (l != Instructions::AvxVnni || vnni)).map(Self));
        }
        all
    }

    /// Its name, as in reports.
    pub(crate) fn name(self) -> &'static str {
        match self.0 {
            Instructions::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Instructions::AvxVnni => "avx-vnni",
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 => "avx512-vnni",
        }
    }
}

/// Defines a function that runs `$body::<S>` compiled for the level's instructions.
macro_rules! dispatched {
    ($(#[$doc:meta])* $visibility:vis $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)?, $body:ident) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments, reason = "operands of a kernel")]
        $visibility fn $name(level: $crate::asr::whisper::kernels::Level, $($argument: $type),*) $(-> $result)? {
            use $crate::asr::whisper::kernels::{Instructions, simd};
            #[cfg(target_arch = "x86_64")]
            {
                #[allow(clippy::too_many_arguments, reason = "operands of a kernel")]
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
                fn avx512($($argument: $type),*) $(-> $result)? {
                    $body::<simd::Avx512>($($argument),*)
                }
                #[allow(clippy::too_many_arguments, reason = "operands of a kernel")]
                #[target_feature(enable = "avxvnni,avx2,fma,f16c")]
                fn avx_vnni($($argument: $type),*) $(-> $result)? {
                    $body::<simd::AvxVnni>($($argument),*)
                }
                #[allow(clippy::too_many_arguments, reason = "operands of a kernel")]
                #[target_feature(enable = "avx2,fma,f16c")]
                fn avx2($($argument: $type),*) $(-> $result)? {
                    $body::<simd::Avx2>($($argument),*)
                }
                // SAFETY: a level exists only where its instructions were found.
                return unsafe {
                    match level.0 {
                        Instructions::Avx512 => avx512($($argument),*),
                        Instructions::AvxVnni => avx_vnni($($argument),*),
                        Instructions::Avx2 => avx2($($argument),*),
                        Instructions::Portable => $body::<simd::Portable>($($argument),*),
                    }
                };
            }
            #[cfg(not(target_arch = "x86_64"))]
            match level.0 {
                Instructions::Portable => $body::<simd::Portable>($($argument),*),
            }
        }
    };
}
use dispatched;

/// Calls `$tile::<S, M, $n>` for all rows, M of them at a time: as many as leave their sums in registers, together with
/// few enough weights to stay in the first-level cache.
macro_rules! by_rows {
    ($rows:expr, $tile:ident, $n:literal, ($($argument:expr),*)) => {{
        let mut row = 0;
        while row < $rows {
            row += match $rows - row {
                12.. if S::WIDE => { $tile::<S, 12, $n>(row, $($argument),*); 12 }
                8.. if S::WIDE => { $tile::<S, 8, $n>(row, $($argument),*); 8 }
                4.. => { $tile::<S, 4, $n>(row, $($argument),*); 4 }
                2.. => { $tile::<S, 2, $n>(row, $($argument),*); 2 }
                _ => { $tile::<S, 1, $n>(row, $($argument),*); 1 }
            };
        }
    }};
}
use by_rows;

#[cfg(test)]
mod tests;
