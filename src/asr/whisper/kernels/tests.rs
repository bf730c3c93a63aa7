//! Tests of the inner loops.
//!
//! In: noise, and every number where there are few. Out: agreement with double precision on both levels.

use super::*;

/// erf by its series (small) or continued fraction (large), in double precision.
fn erf(x: f64) -> f64 {
    let z = x.abs();
    let value = if z < 3.0 {
        let (mut term, mut total) = (z, z);
        for n in 1..200 {
            term *= -z * z / f64::from(n);
            total += term / f64::from(2 * n + 1);
        }
        total * std::f64::consts::FRAC_2_SQRT_PI
    } else {
        let mut f = 0.0;
        for n in (1..60).rev() {
            f = f64::from(n) / 2.0 / (z + f);
        }
        1.0 - (-z * z).exp() / (z + f) / std::f64::consts::PI.sqrt()
    };
    value.copysign(x)
}

fn noise(n: usize) -> Vec<f32> {
    let mut state = 7u32;
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

fn levels() -> [Level; 2] {
    [Level::PORTABLE, Level::detect()]
}

#[test]
fn every_half_is_converted_to_the_bit() {
    for bits in 0..=u16::MAX {
        let (ours, theirs) = (half(bits), half::f16::from_bits(bits).to_f32());
        assert!(ours.to_bits() == theirs.to_bits() || ours.is_nan() && theirs.is_nan(), "{bits:#x}");
    }
}

#[test]
fn gelu_is_the_exact_one() {
    for level in levels() {
        let xs: Vec<f32> = (-12_000..12_000).map(|i| i as f32 / 1000.0).collect();
        let mut ys = xs.clone();
        bias_gelu(level, &mut ys, &[0.0]);
        for (x, y) in xs.iter().zip(ys) {
            let x = f64::from(*x);
            let exact = 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2));
            assert!((f64::from(y) - exact).abs() < 1e-6, "gelu({x}) = {y}, exact {exact}");
        }
    }
}

#[test]
fn softmax_sums_to_one_and_follows_exp() {
    for level in levels() {
        for width in [1, 7, 16, 33, 1500] {
            let xs: Vec<f32> = noise(3 * width).iter().map(|v| v * 20.0).collect();
            let mut ys = xs.clone();
            softmax(level, &mut ys, width);
            for (x, y) in xs.chunks(width).zip(ys.chunks(width)) {
                let total: f64 = x.iter().map(|&v| f64::from(v).exp()).sum();
                for (x, y) in x.iter().zip(y) {
                    let exact = f64::from(*x).exp() / total;
                    assert!((f64::from(*y) - exact).abs() < 1e-6 * exact + 1e-9);
                }
            }
        }
    }
}

#[test]
fn products_agree_with_double_precision() {
    for level in levels() {
        for (rows, columns) in [(1, 1), (5, 31), (3, 32), (7, 240), (4, 512)] {
            let (w, x) = (noise(rows * columns), noise(columns));
            let bytes: Vec<u8> = w.iter().flat_map(|v| v.to_le_bytes()).collect();
            let (mut a, mut b) = (vec![0.0; rows], vec![0.0; rows]);
            gemv(level, Form::F32, &bytes, &x, &mut a);
            dots(level, &w, &x, &mut b);
            for ((row, a), b) in w.chunks(columns).zip(a).zip(b) {
                let exact: f64 = row.iter().zip(&x).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                assert!((f64::from(a) - exact).abs() < 1e-4 && (f64::from(b) - exact).abs() < 1e-4);
            }
        }
    }
}

#[test]
fn every_form_is_unpacked_alike_on_both_levels() {
    for bits in (0..=u16::MAX).collect::<Vec<_>>().chunks(33) {
        let bytes: Vec<u8> = bits.iter().flat_map(|v| v.to_le_bytes()).collect();
        for form in [Form::F16, Form::Bf16] {
            for level in levels() {
                let mut out = vec![0.0; bits.len()];
                dequantise(level, form, &bytes, &mut out);
                for (v, &bits) in out.iter().zip(bits) {
                    let exact = match form {
                        Form::F16 => half::f16::from_bits(bits).to_f32(),
                        _ => half::bf16::from_bits(bits).to_f32(),
                    };
                    assert!(v.to_bits() == exact.to_bits() || v.is_nan() && exact.is_nan(), "{bits:#x}");
                }
            }
        }
    }
    let block: Vec<u8> = [0x00, 0x38].into_iter().chain((0..32).map(|i| (i * 8 - 128) as u8)).collect();
    for level in levels() {
        let mut out = [0.0; 32];
        dequantise(level, Form::Q8_0, &block, &mut out); // the scale is 0.5
        assert!(out.iter().zip(0..32).all(|(v, i)| *v == 0.5 * f32::from((i * 8 - 128) as i16)));
    }
}

#[test]
fn what_is_not_finite_neither_panics_nor_wins() {
    for level in levels() {
        let xs = [f32::NAN, f32::NEG_INFINITY, 1.0, f32::NAN, -3.0];
        assert_eq!(masked_max(level, &xs, &[0.0; 5]), 1.0);
        let mut rows = xs;
        softmax(level, &mut rows, 5);
        let mut rows = [f32::INFINITY, f32::NAN];
        bias_gelu(level, &mut rows, &[f32::NAN]);
    }
}
