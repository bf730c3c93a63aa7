//! Matrix products of one thread: weights are unpacked a panel at a time and multiplied by `gemm`.
//!
//! In: activations `[rows, inputs]` and stored weights `[outputs, inputs]`. Out: `[rows, outputs]`.
//! Few rows (a decoder's step) take the weights a row at a time, so that they are read from memory once.

#![expect(unsafe_code, reason = "gemm takes pointers and strides")]

use super::kernels::{self, Level};
use super::load::{Matrix, Store};

/// Floats of a panel of unpacked weights: 1 MiB, within most second-level caches.
const PANEL: usize = 1 << 18;
/// Up to so many rows of activations, weights are unpacked a row at a time.
const FEW_ROWS: usize = 6;

/// `out = x · weightᵀ + bias`.
#[derive(Debug)]
pub(crate) struct Linear {
    pub(crate) weight: Matrix,
    /// `[outputs]`; keys have none.
    pub(crate) bias: Option<Vec<f32>>,
}

/// What products need besides their operands. One a thread.
#[derive(Debug)]
pub(crate) struct Products {
    pub(crate) level: Level,
    /// Unpacked weights.
    panel: Vec<f32>,
    /// Dot products of a weight's row with few rows.
    column: [f32; FEW_ROWS],
}

/// A matrix within a slice: element (i, j) is at `i * rows + j * columns`.
#[derive(Clone, Copy)]
pub(crate) struct Strided<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) rows: usize,
    pub(crate) columns: usize,
}

impl Products {
    pub(crate) fn new() -> Self {
        Self { level: Level::detect(), panel: Vec::new(), column: [0.0; FEW_ROWS] }
    }

    /// `out[m, n] = a[m, k] · b[k, n]`; `out` has contiguous rows `stride` apart. One thread.
    pub(crate) fn multiply(
        &self,
        (m, n, k): (usize, usize, usize),
        a: Strided<'_>,
        b: Strided<'_>,
        out: &mut [f32],
        stride: usize,
    ) {
        if m == 0 || n == 0 {
            return;
        }
        let last = |rows: usize, columns: usize, s: &Strided<'_>| (rows - 1) * s.rows + (columns - 1) * s.columns;
        assert!(k > 0 && last(m, k, &a) < a.data.len() && last(k, n, &b) < b.data.len());
        assert!(n <= stride && (m - 1) * stride + n <= out.len());
        // SAFETY: the assertions above keep every index of the three matrices within its slice; `out` is borrowed
        // exclusively and its rows do not overlap (n ≤ stride).
        unsafe {
            gemm::gemm(
                m,
                n,
                k,
                out.as_mut_ptr(),
                1,
                stride as isize,
                false,
                a.data.as_ptr(),
                a.columns as isize,
                a.rows as isize,
                b.data.as_ptr(),
                b.columns as isize,
                b.rows as isize,
                0.0,
                1.0,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
    }

    /// `out[rows, outputs] = x[rows, inputs] · weightᵀ`.
    pub(crate) fn matrix(&mut self, store: &Store, weight: &Matrix, x: &[f32], out: &mut [f32]) {
        let (inputs, outputs) = (weight.columns, weight.rows);
        let rows = x.len() / inputs;
        assert!(x.len() == rows * inputs && out.len() == rows * outputs);
        if rows == 1 {
            kernels::gemv(self.level, weight.form, store.bytes(weight), x, out);
        } else if rows <= FEW_ROWS {
            self.panel.resize(self.panel.len().max(inputs), 0.0);
            let unpacked = &mut self.panel[..inputs];
            for row in 0..outputs {
                kernels::dequantise(self.level, weight.form, store.row(weight, row), unpacked);
                kernels::dots(self.level, x, unpacked, &mut self.column[..rows]);
                for (i, &v) in self.column[..rows].iter().enumerate() {
                    out[i * outputs + row] = v;
                }
            }
        } else {
            let height = (PANEL / inputs).clamp(1, outputs);
            self.panel.resize(self.panel.len().max(height * inputs), 0.0);
            for first in (0..outputs).step_by(height) {
                let n = height.min(outputs - first);
                let mut panel = std::mem::take(&mut self.panel);
                let unpacked = &mut panel[..n * inputs];
                kernels::dequantise(self.level, weight.form, store.rows(weight, first, n), unpacked);
                self.multiply(
                    (rows, n, inputs),
                    Strided { data: x, rows: inputs, columns: 1 },
                    Strided { data: unpacked, rows: 1, columns: inputs },
                    &mut out[first..],
                    outputs,
                );
                self.panel = panel;
            }
        }
    }

    /// [`Products::matrix`], then the bias.
    pub(crate) fn linear(&mut self, store: &Store, linear: &Linear, x: &[f32], out: &mut [f32]) {
        self.matrix(store, &linear.weight, x, out);
        if let Some(bias) = &linear.bias {
            for row in out.chunks_exact_mut(bias.len()) {
                for (v, b) in row.iter_mut().zip(bias) {
                    *v += b;
                }
            }
        }
    }

    /// [`Products::matrix`], then the bias and the GELU.
    pub(crate) fn linear_gelu(&mut self, store: &Store, linear: &Linear, x: &[f32], out: &mut [f32]) {
        self.matrix(store, &linear.weight, x, out);
        match &linear.bias {
            Some(bias) => kernels::bias_gelu(self.level, out, bias),
            None => kernels::bias_gelu(self.level, out, &[0.0]),
        }
    }
}
