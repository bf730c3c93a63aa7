//! Sixteen lanes on each level of instructions.
//!
//! In: pointers to sixteen floats, or to sixteen times four 8-bit weights. Out: values that stay in registers.
//! Kernels are written once, over [`Simd`], and compiled once for each level by `dispatched!`.

#![expect(unsafe_code, reason = "loads, stores and instructions of a level that the caller has checked for")]

/// Operations of one level.
///
/// # Safety
/// Every method may be called only where the level's instructions exist, and pointers must be good for sixteen floats,
/// or as many bytes as said; they need no alignment.
pub(super) trait Simd: Copy + 'static {
    /// Sixteen floats.
    type F: Copy;
    /// Sixteen 32-bit integers.
    type I: Copy;
    /// Four weights for each of sixteen outputs.
    type W: Copy;
    /// Whether there are 32 registers of sixteen lanes, and not sixteen of eight: decides the size of tiles.
    const WIDE: bool;
    /// Whether a product and a sum are rounded once.
    const FMA: bool;
    /// Whether [`Simd::dot`] takes the weights with their offset of 128, so that sums start at the correction for it.
    const OFFSET: bool;

    unsafe fn load(p: *const f32) -> Self::F;
    unsafe fn store(p: *mut f32, v: Self::F);
    unsafe fn splat(v: f32) -> Self::F;
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    /// `a · b + c`, rounded once where the level has FMA.
    unsafe fn mul_add(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// Sixteen half-precision numbers, 32 bytes.
    unsafe fn halves(p: *const u16) -> Self::F;
    /// Sixteen signed bytes.
    unsafe fn bytes(p: *const i8) -> Self::F;

    /// 64 bytes of weights, each stored with an offset of 128.
    unsafe fn weights(p: *const u8) -> Self::W;
    unsafe fn splat_i(v: i32) -> Self::I;
    unsafe fn add_i(a: Self::I, b: Self::I) -> Self::I;
    /// The greatest of each lane and the float there without its sign, by their bits.
    unsafe fn max_bits(a: Self::I, p: *const f32) -> Self::I;
    /// The greatest lane, unsigned.
    unsafe fn greatest(v: Self::I) -> u32;
    /// The sum of all lanes, wrapping.
    unsafe fn sum(v: Self::I) -> i32;
    /// `sums + w · x` for the four signed bytes in `x`, each within ±127. Exact.
    unsafe fn dot(sums: Self::I, w: Self::W, x: i32) -> Self::I;
    unsafe fn to_f(v: Self::I) -> Self::F;
    /// Rounds to the nearest integer, ties to even, stores sixteen signed bytes and gives them back.
    unsafe fn round_i8(p: *mut i8, v: Self::F) -> Self::I;
}

/// No more than the target's baseline.
#[derive(Clone, Copy)]
pub(super) struct Portable;

impl Simd for Portable {
    type F = [f32; 16];
    type I = [i32; 16];
    type W = [i8; 64];
    const WIDE: bool = false;
    const FMA: bool = cfg!(target_arch = "aarch64");
    const OFFSET: bool = false;

    #[inline(always)]
    unsafe fn load(p: *const f32) -> [f32; 16] {
        // SAFETY: the caller's pointer is good for sixteen floats; an array needs no more alignment than a float here.
        unsafe { p.cast::<[f32; 16]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: [f32; 16]) {
        // SAFETY: as for `load`.
        unsafe { p.cast::<[f32; 16]>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn splat(v: f32) -> [f32; 16] {
        [v; 16]
    }
    #[inline(always)]
    unsafe fn add(mut a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        a
    }
    #[inline(always)]
    unsafe fn mul(mut a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        a.iter_mut().zip(b).for_each(|(a, b)| *a *= b);
        a
    }
    #[inline(always)]
    unsafe fn mul_add(a: [f32; 16], b: [f32; 16], mut c: [f32; 16]) -> [f32; 16] {
        for (c, (a, b)) in c.iter_mut().zip(a.into_iter().zip(b)) {
            *c = super::float::mul_add::<Self>(a, b, *c);
        }
        c
    }
    #[inline(always)]
    unsafe fn halves(p: *const u16) -> [f32; 16] {
        // SAFETY: the caller's pointer is good for sixteen numbers.
        unsafe { p.cast::<[u16; 16]>().read_unaligned() }.map(super::dequantise::half)
    }
    #[inline(always)]
    unsafe fn bytes(p: *const i8) -> [f32; 16] {
        // SAFETY: the caller's pointer is good for sixteen bytes.
        unsafe { p.cast::<[i8; 16]>().read_unaligned() }.map(f32::from)
    }
    #[inline(always)]
    unsafe fn weights(p: *const u8) -> [i8; 64] {
        // SAFETY: the caller's pointer is good for 64 bytes.
        unsafe { p.cast::<[u8; 64]>().read_unaligned() }.map(|w| (w ^ 0x80) as i8)
    }
    #[inline(always)]
    unsafe fn splat_i(v: i32) -> [i32; 16] {
        [v; 16]
    }
    #[inline(always)]
    unsafe fn add_i(mut a: [i32; 16], b: [i32; 16]) -> [i32; 16] {
        a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        a
    }
    #[inline(always)]
    unsafe fn max_bits(mut a: [i32; 16], p: *const f32) -> [i32; 16] {
        // SAFETY: the caller's pointer is good for sixteen floats.
        let x = unsafe { p.cast::<[f32; 16]>().read_unaligned() };
        // Without the sign bit, signed and unsigned order are the same.
        a.iter_mut().zip(x).for_each(|(a, x)| *a = (*a).max((x.to_bits() & !(1 << 31)) as i32));
        a
    }
    #[inline(always)]
    unsafe fn greatest(v: [i32; 16]) -> u32 {
        v.into_iter().fold(0, |a, v| a.max(v as u32))
    }
    #[inline(always)]
    unsafe fn sum(v: [i32; 16]) -> i32 {
        v.into_iter().fold(0, i32::wrapping_add)
    }
    #[inline(always)]
    unsafe fn dot(mut sums: [i32; 16], w: [i8; 64], x: i32) -> [i32; 16] {
        let x = x.to_le_bytes().map(|x| i32::from(x as i8));
        for (sum, w) in sums.iter_mut().zip(w.as_chunks::<4>().0) {
            *sum +=
                (i32::from(w[0]) * x[0] + i32::from(w[1]) * x[1]) + (i32::from(w[2]) * x[2] + i32::from(w[3]) * x[3]);
        }
        sums
    }
    #[inline(always)]
    unsafe fn to_f(v: [i32; 16]) -> [f32; 16] {
        v.map(|v| v as f32)
    }
    #[inline(always)]
    unsafe fn round_i8(p: *mut i8, v: [f32; 16]) -> [i32; 16] {
        let v = v.map(super::float::round_i8);
        // SAFETY: the caller's pointer is good for sixteen bytes.
        unsafe { p.cast::<[i8; 16]>().write_unaligned(v) };
        v.map(i32::from)
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512, AvxVnni};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Simd;

    /// What AVX2 and AVX-VNNI share: sixteen lanes are two registers.
    macro_rules! two_halves {
        () => {
            type F = [__m256; 2];
            type I = [__m256i; 2];
            const WIDE: bool = false;
            const FMA: bool = true;

            #[inline(always)]
            unsafe fn load(p: *const f32) -> [__m256; 2] {
                unsafe { [_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))] }
            }
            #[inline(always)]
            unsafe fn store(p: *mut f32, v: [__m256; 2]) {
                unsafe {
                    _mm256_storeu_ps(p, v[0]);
                    _mm256_storeu_ps(p.add(8), v[1]);
                }
            }
            #[inline(always)]
            unsafe fn splat(v: f32) -> [__m256; 2] {
                unsafe { [_mm256_set1_ps(v); 2] }
            }
            #[inline(always)]
            unsafe fn add(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
                unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
            }
            #[inline(always)]
            unsafe fn mul(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
                unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
            }
            #[inline(always)]
            unsafe fn mul_add(a: [__m256; 2], b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] {
                unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
            }
            #[inline(always)]
            unsafe fn halves(p: *const u16) -> [__m256; 2] {
                unsafe {
                    let p = p.cast::<__m128i>();
                    [_mm256_cvtph_ps(_mm_loadu_si128(p)), _mm256_cvtph_ps(_mm_loadu_si128(p.add(1)))]
                }
            }
            #[inline(always)]
            unsafe fn bytes(p: *const i8) -> [__m256; 2] {
                unsafe {
                    let v = _mm_loadu_si128(p.cast());
                    let upper = _mm_unpackhi_epi64(v, v);
                    [_mm256_cvtepi8_epi32(v), _mm256_cvtepi8_epi32(upper)].map(|v| _mm256_cvtepi32_ps(v))
                }
            }
            #[inline(always)]
            unsafe fn splat_i(v: i32) -> [__m256i; 2] {
                unsafe { [_mm256_set1_epi32(v); 2] }
            }
            #[inline(always)]
            unsafe fn add_i(a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
                unsafe { [_mm256_add_epi32(a[0], b[0]), _mm256_add_epi32(a[1], b[1])] }
            }
            #[inline(always)]
            unsafe fn max_bits(a: [__m256i; 2], p: *const f32) -> [__m256i; 2] {
                unsafe {
                    let (p, bits) = (p.cast::<__m256i>(), _mm256_set1_epi32(i32::MAX));
                    let bits = |i| _mm256_and_si256(_mm256_loadu_si256(p.add(i)), bits);
                    [_mm256_max_epi32(a[0], bits(0)), _mm256_max_epi32(a[1], bits(1))]
                }
            }
            #[inline(always)]
            unsafe fn greatest(v: [__m256i; 2]) -> u32 {
                unsafe {
                    let v = _mm256_max_epi32(v[0], v[1]);
                    let v = _mm_max_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
                    let v = _mm_max_epi32(v, _mm_shuffle_epi32::<0b01_00_11_10>(v));
                    _mm_cvtsi128_si32(_mm_max_epi32(v, _mm_shuffle_epi32::<0b10_11_00_01>(v))) as u32
                }
            }
            #[inline(always)]
            unsafe fn sum(v: [__m256i; 2]) -> i32 {
                unsafe {
                    let v = _mm256_add_epi32(v[0], v[1]);
                    let v = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
                    let v = _mm_add_epi32(v, _mm_shuffle_epi32::<0b01_00_11_10>(v));
                    _mm_cvtsi128_si32(_mm_add_epi32(v, _mm_shuffle_epi32::<0b10_11_00_01>(v)))
                }
            }
            #[inline(always)]
            unsafe fn to_f(v: [__m256i; 2]) -> [__m256; 2] {
                unsafe { [_mm256_cvtepi32_ps(v[0]), _mm256_cvtepi32_ps(v[1])] }
            }
            #[inline(always)]
            unsafe fn round_i8(p: *mut i8, v: [__m256; 2]) -> [__m256i; 2] {
                unsafe {
                    let v = [_mm256_cvtps_epi32(v[0]), _mm256_cvtps_epi32(v[1])];
                    // Packing works within halves of a register: the permutation puts the quarters in order.
                    let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(v[0], v[1]));
                    let bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
                    _mm_storeu_si128(p.cast(), bytes);
                    v
                }
            }
        };
    }

    /// AVX2 with FMA and F16C.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Avx2;

    #[expect(clippy::undocumented_unsafe_blocks, reason = "each repeats the promise of the trait, made by the caller")]
    impl Simd for Avx2 {
        type W = [__m256i; 2];
        const OFFSET: bool = false;
        two_halves!();

        #[inline(always)]
        unsafe fn weights(p: *const u8) -> [__m256i; 2] {
            unsafe {
                let (p, offset) = (p.cast::<__m256i>(), _mm256_set1_epi8(-128));
                [
                    _mm256_xor_si256(_mm256_loadu_si256(p), offset),
                    _mm256_xor_si256(_mm256_loadu_si256(p.add(1)), offset),
                ]
            }
        }
        /// `vpmaddubsw` adds two products in 16 bits and saturates. With |x| ≤ 127 as its unsigned side and the sign of x
        /// on the weights, a pair is at most 2 · 127 · 127 = 32 258: it never does.
        #[inline(always)]
        unsafe fn dot(sums: [__m256i; 2], w: [__m256i; 2], x: i32) -> [__m256i; 2] {
            unsafe {
                let x = _mm256_set1_epi32(x);
                let (magnitude, ones) = (_mm256_abs_epi8(x), _mm256_set1_epi16(1));
                let part = |sum, w| {
                    let pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(w, x));
                    _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, ones))
                };
                [part(sums[0], w[0]), part(sums[1], w[1])]
            }
        }
    }

    /// AVX2 and the 256-bit `vpdpbusd` of processors without AVX-512.
    #[derive(Clone, Copy)]
    pub(in super::super) struct AvxVnni;

    #[expect(clippy::undocumented_unsafe_blocks, reason = "each repeats the promise of the trait, made by the caller")]
    impl Simd for AvxVnni {
        type W = [__m256i; 2];
        const OFFSET: bool = true;
        two_halves!();

        #[inline(always)]
        unsafe fn weights(p: *const u8) -> [__m256i; 2] {
            unsafe { [_mm256_loadu_si256(p.cast()), _mm256_loadu_si256(p.cast::<__m256i>().add(1))] }
        }
        #[inline(always)]
        unsafe fn dot(sums: [__m256i; 2], w: [__m256i; 2], x: i32) -> [__m256i; 2] {
            unsafe {
                let x = _mm256_set1_epi32(x);
                [_mm256_dpbusd_avx_epi32(sums[0], w[0], x), _mm256_dpbusd_avx_epi32(sums[1], w[1], x)]
            }
        }
    }

    /// AVX-512 with VNNI.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Avx512;

    #[expect(clippy::undocumented_unsafe_blocks, reason = "each repeats the promise of the trait, made by the caller")]
    impl Simd for Avx512 {
        type F = __m512;
        type I = __m512i;
        type W = __m512i;
        const WIDE: bool = true;
        const FMA: bool = true;
        const OFFSET: bool = true;

        #[inline(always)]
        unsafe fn load(p: *const f32) -> __m512 {
            unsafe { _mm512_loadu_ps(p) }
        }
        #[inline(always)]
        unsafe fn store(p: *mut f32, v: __m512) {
            unsafe { _mm512_storeu_ps(p, v) }
        }
        #[inline(always)]
        unsafe fn splat(v: f32) -> __m512 {
            unsafe { _mm512_set1_ps(v) }
        }
        #[inline(always)]
        unsafe fn add(a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_add_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn mul(a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_mul_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512 {
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        unsafe fn halves(p: *const u16) -> __m512 {
            unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
        }
        #[inline(always)]
        unsafe fn bytes(p: *const i8) -> __m512 {
            unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast()))) }
        }
        #[inline(always)]
        unsafe fn weights(p: *const u8) -> __m512i {
            unsafe { _mm512_loadu_si512(p.cast()) }
        }
        #[inline(always)]
        unsafe fn splat_i(v: i32) -> __m512i {
            unsafe { _mm512_set1_epi32(v) }
        }
        #[inline(always)]
        unsafe fn add_i(a: __m512i, b: __m512i) -> __m512i {
            unsafe { _mm512_add_epi32(a, b) }
        }
        #[inline(always)]
        unsafe fn max_bits(a: __m512i, p: *const f32) -> __m512i {
            unsafe {
                let bits = _mm512_and_si512(_mm512_loadu_si512(p.cast()), _mm512_set1_epi32(i32::MAX));
                _mm512_max_epi32(a, bits)
            }
        }
        #[inline(always)]
        unsafe fn greatest(v: __m512i) -> u32 {
            unsafe { _mm512_reduce_max_epu32(v) }
        }
        #[inline(always)]
        unsafe fn sum(v: __m512i) -> i32 {
            unsafe { _mm512_reduce_add_epi32(v) }
        }
        #[inline(always)]
        unsafe fn dot(sums: __m512i, w: __m512i, x: i32) -> __m512i {
            unsafe { _mm512_dpbusd_epi32(sums, w, _mm512_set1_epi32(x)) }
        }
        #[inline(always)]
        unsafe fn to_f(v: __m512i) -> __m512 {
            unsafe { _mm512_cvtepi32_ps(v) }
        }
        #[inline(always)]
        unsafe fn round_i8(p: *mut i8, v: __m512) -> __m512i {
            unsafe {
                let v = _mm512_cvtps_epi32(v);
                _mm_storeu_si128(p.cast(), _mm512_cvtsepi32_epi8(v));
                v
            }
        }
    }
}
