use super::float::gelu_in_place;
use super::*;
use crate::asr::whisper::load::Form;
use crate::asr::whisper::testing;

fn noise(count: usize) -> Vec<f32> {
    testing::noise(count, 7, 1.0)
}

fn pack(packing: Packing, outputs: usize, inputs: usize, weights: &[f32]) -> Packed {
    let mut packed = Packed::new(packing, outputs, inputs);
    for (tile, rows) in weights.chunks(LANES * inputs).enumerate() {
        packed.set_tile(tile, rows);
    }
    packed
}

fn multiply(level: Level, packed: &Packed, x: &[f32], bias: Option<&[f32]>, finish: Finish) -> Vec<f32> {
    let mut acts = Activations::default();
    acts.load(level, packed.packing(), x, packed.inputs, packed.inputs);
    let mut out = vec![0.25; x.len() / packed.inputs * packed.outputs];
    product(level, &acts, packed, bias, finish, &mut out);
    out
}

#[test]
fn eight_bit_sums_are_the_same_on_every_level() {
    for (rows, inputs, outputs) in [(1, 32, 16), (13, 96, 48), (7, 160, 16), (30, 64, 80)] {
        // Extremes too: a whole row at the ends of the range must not saturate anywhere.
        let mut x = noise(rows * inputs);
        x[..inputs].fill(-1.0);
        let mut w = noise(outputs * inputs);
        w[..inputs].fill(1.0);
        w[inputs..2 * inputs].fill(-1.0);
        let all = Level::all();
        let bytes = |level, packing| {
            let mut acts = Activations::default();
            acts.load(level, packing, &x, inputs, inputs);
            let (bytes, corrections) = acts.integers();
            (bytes.to_vec(), corrections.to_vec())
        };
        for packing in [Packing::Rows, Packing::Blocks] {
            assert!(all.iter().all(|&level| bytes(level, packing) == bytes(all[0], packing)));
        }
        let packed = pack(Packing::Rows, outputs, inputs, &w);
        let portable = multiply(all[0], &packed, &x, None, Finish::Store);
        // By hand, from the definition.
        let (bytes, _) = bytes(all[0], Packing::Rows);
        let mut row = vec![0.0; inputs];
        for output in 0..outputs {
            packed.row(output, &mut row);
            let scale = row.iter().fold(0.0f32, |a, v| a.max(v.abs())) / 127.0;
            for (r, bytes) in bytes.chunks(inputs).enumerate() {
                let sum: i32 = bytes.iter().zip(&row).map(|(&x, w)| i32::from(x) * (w / scale).round() as i32).sum();
                let top = x[r * inputs..(r + 1) * inputs].iter().fold(0.0f32, |a, v| a.max(v.abs()));
                let exact = sum as f32 * (top / 127.0 * scale);
                assert!((portable[r * outputs + output] - exact).abs() <= 1e-5 * exact.abs().max(1e-3));
            }
        }
        for &level in &all[1..] {
            assert_eq!(multiply(level, &packed, &x, None, Finish::Store), portable, "{}", level.name());
        }
    }
    // One block: nothing but its integer sum and the scales.
    let (x, w) = (noise(5 * 32), noise(16 * 32));
    let packed = pack(Packing::Blocks, 16, 32, &w);
    let all = Level::all();
    let portable = multiply(all[0], &packed, &x, None, Finish::Store);
    for &level in &all[1..] {
        assert_eq!(multiply(level, &packed, &x, None, Finish::Store), portable, "{}", level.name());
    }
}

#[test]
fn products_are_off_by_no_more_than_the_steps_allow() {
    for (rows, inputs, outputs) in [(1, 384, 16), (14, 512, 32), (3, 32, 64)] {
        let (x, w, bias) = (noise(rows * inputs), noise(outputs * inputs), noise(outputs));
        for packing in [Packing::Float, Packing::Rows, Packing::Blocks] {
            let packed = pack(packing, outputs, inputs, &w);
            for level in Level::all() {
                let out = multiply(level, &packed, &x, Some(&bias), Finish::Store);
                for (x, out) in x.chunks(inputs).zip(out.chunks(outputs)) {
                    for ((w, bias), &out) in w.chunks(inputs).zip(&bias).zip(out) {
                        let exact: f64 = w.iter().zip(x).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                        let exact = exact + f64::from(*bias);
                        // Each factor is off by half a step of its largest; a block's scale is rounded to 11 bits too.
                        let step = |v: &[f32]| v.iter().fold(0.0f32, |a, v| a.max(v.abs())) / 127.0 * 0.57;
                        let magnitudes = |v: &[f32]| v.iter().map(|v| v.abs()).sum::<f32>();
                        let bound = match packing {
                            Packing::Float => 3e-4,
                            _ => step(x) * magnitudes(w) + step(w) * magnitudes(x) + step(x) * step(w) * inputs as f32,
                        };
                        let off = (f64::from(out) - exact).abs();
                        assert!(off <= f64::from(bound), "{packing:?} {}: off by {off}", level.name());
                    }
                }
            }
        }
    }
}

/// The promise behind drafts and behind sharing: a row's bits do not depend on its neighbours, nor on who computes which
/// tiles.
#[test]
fn a_row_is_the_same_whatever_stands_beside_it() {
    let (inputs, outputs, most) = (96, 112, 27);
    let (x, w) = (noise(most * inputs), noise(outputs * inputs));
    for packing in [Packing::Float, Packing::Rows, Packing::Blocks] {
        let packed = pack(packing, outputs, inputs, &w);
        for level in Level::all() {
            let alone: Vec<f32> =
                x.chunks(inputs).flat_map(|row| multiply(level, &packed, row, None, Finish::Gelu)).collect();
            for rows in 1..=most {
                let together = multiply(level, &packed, &x[..rows * inputs], None, Finish::Gelu);
                assert_eq!(together, alone[..rows * outputs], "{packing:?} {} {rows}", level.name());
            }
            let mut acts = Activations::default();
            acts.load(level, packing, &x, inputs, inputs);
            let mut out = vec![0.0; most * outputs];
            for tiles in [0..1, 1..4, 4..7] {
                // SAFETY: `out` has room for all rows of all tiles, and there is one thread.
                #[expect(unsafe_code, reason = "the function under test")]
                unsafe {
                    product_into(level, &acts, &packed, tiles, None, Finish::Gelu, out.as_mut_ptr(), outputs);
                }
            }
            assert_eq!(out, alone);
        }
    }
}

#[test]
fn finishes_add_to_what_is_there_or_pass_the_gelu() {
    let (x, w, bias) = (noise(5 * 32), noise(32 * 32), noise(32));
    for level in Level::all() {
        let packed = pack(Packing::Rows, 32, 32, &w);
        let plain = multiply(level, &packed, &x, Some(&bias), Finish::Store);
        let added = multiply(level, &packed, &x, Some(&bias), Finish::Add);
        assert!(added.iter().zip(&plain).all(|(a, p)| *a == p + 0.25));
        let mut gelu = plain;
        gelu_in_place(level, &mut gelu);
        assert_eq!(multiply(level, &packed, &x, Some(&bias), Finish::Gelu), gelu);
    }
}

#[test]
fn rows_may_overlap_as_a_convolution_reads_them() {
    let (x, w) = (noise(20 * 16), noise(16 * 48));
    let packed = pack(Packing::Rows, 16, 48, &w);
    for level in Level::all() {
        let mut acts = Activations::default();
        acts.load(level, Packing::Rows, &x, 48, 32);
        let mut out = vec![0.0; 9 * 16];
        product(level, &acts, &packed, None, Finish::Store, &mut out);
        let unfolded: Vec<f32> = x.windows(48).step_by(32).flatten().copied().collect();
        assert_eq!(out, multiply(level, &packed, &unfolded, None, Finish::Store));
    }
}

#[test]
fn packed_weights_come_back() {
    let w = noise(20 * 64);
    for (packing, tolerance) in [(Packing::Float, 0.0), (Packing::Rows, 0.5 / 127.0), (Packing::Blocks, 0.57 / 127.0)] {
        let packed = pack(packing, 20, 64, &w);
        let mut row = [0.0; 64];
        for (output, w) in w.chunks(64).enumerate() {
            packed.row(output, &mut row);
            assert!(w.iter().zip(&row).all(|(a, b)| (a - b).abs() <= tolerance), "{packing:?}");
        }
    }
    // Scales at the end of half precision's range: rounded by up to a third, and still no weight changes its sign.
    for size in [1e-4, 1e-5, 3e-6, 1e-7] {
        let w: Vec<f32> = noise(16 * 64).iter().map(|v| v * size).collect();
        let packed = pack(Packing::Blocks, 16, 64, &w);
        let mut row = [0.0; 64];
        for (output, w) in w.chunks(64).enumerate() {
            packed.row(output, &mut row);
            let tolerance = 0.4 * size + 4e-6; // 127 times half of the smallest scale
            assert!(
                w.iter().zip(&row).all(|(a, b)| (a - b).abs() <= tolerance && a * b >= 0.0),
                "weights up to {size}"
            );
        }
    }
    // q8_0 as a file holds it, −128 included, which no writer makes.
    let blocks: Vec<u8> = (0..16)
        .flat_map(|row| [0x00, 0x38].into_iter().chain((0..32).map(move |i| (i * 8 - 128 + row) as u8)))
        .collect();
    let mut packed = Packed::new(Packing::Blocks, 16, 32);
    packed.set_blocks(0, &blocks);
    let mut row = [0.0; 32];
    packed.row(3, &mut row);
    assert!(row.iter().zip(0..).all(|(v, i)| *v == 0.5 * f32::from(i * 8 - 128 + 3_i16)));
    packed.row(0, &mut row);
    assert_eq!(row[0], -63.5);
}

#[test]
fn attention_agrees_with_double_precision() {
    let (size, heads) = (48, 2);
    let width = size * heads;
    // Queries and keys of up to 1 are off by half a step of 1/127 each, and 48 such products move a score by 0.01; half a
    // step of the values is 0.004.
    for (packing, tolerance) in [(Packing::Float, 1e-5), (Packing::Rows, 0.012)] {
        let layout = Layout::new(width, heads, packing);
        for (rows, counts) in [(1, vec![1]), (3, vec![37]), (14, vec![48, 21]), (29, vec![16, 32, 5])] {
            let queries = noise(rows * width);
            let total: usize = counts.iter().sum();
            let (keys, values) = (noise(total * width), noise(total * width).into_iter().rev().collect::<Vec<_>>());
            let bias: Vec<f32> = noise(total).iter().map(|v| v * 3.0).collect();
            let mut blocks: Vec<Floats> = Vec::new();
            let mut from = 0;
            for &count in &counts {
                let mut set = Floats::zeros(count.div_ceil(LANES) * layout.block());
                let part = from * width..(from + count) * width;
                layout.file(
                    Level::detect(),
                    &mut Activations::default(),
                    &mut set,
                    0,
                    &keys[part.clone()],
                    &values[part],
                );
                blocks.push(set);
                from += count;
            }
            let mut from = 0;
            let sets: Vec<Keys<'_>> = counts
                .iter()
                .zip(&blocks)
                .map(|(&count, blocks)| {
                    let bias = &bias[from..from + count];
                    from += count;
                    Keys { blocks, count, bias }
                })
                .collect();
            for level in Level::all() {
                let mut out = vec![0.0; rows * width];
                let mut weights = vec![0.0f32; heads * rows * total];
                let mut file = |head: usize, row: usize, found: &[f32]| {
                    weights[(head * rows + row) * total..][..total].copy_from_slice(found);
                    let sum: f32 = found.iter().sum();
                    weights[(head * rows + row) * total..][..total].iter_mut().for_each(|v| *v /= sum);
                };
                let mut scratch = AttentionScratch::default();
                attend(level, layout, &queries, &sets, &mut scratch, &mut out, Some(&mut file));
                for row in 0..rows {
                    let mut alone = vec![0.0; width];
                    let query = &queries[row * width..(row + 1) * width];
                    attend(level, layout, query, &sets, &mut scratch, &mut alone, None);
                    assert_eq!(alone, out[row * width..(row + 1) * width], "a row depends on its neighbours");
                    for head in 0..heads {
                        let of = |v: &[f32], at: usize| {
                            let part = &v[at * width + head * size..][..size];
                            part.iter().map(|v| f64::from(*v)).collect::<Vec<_>>()
                        };
                        let q = of(&queries, row);
                        let score = |at: usize| {
                            let dot: f64 = of(&keys, at).iter().zip(&q).map(|(a, b)| a * b).sum();
                            (dot / (size as f64).sqrt() + f64::from(bias[at])).exp()
                        };
                        let all: Vec<f64> = (0..total).map(score).collect();
                        let sum: f64 = all.iter().sum();
                        for i in 0..size {
                            let exact: f64 = (0..total).map(|at| all[at] / sum * of(&values, at)[i]).sum();
                            let ours = f64::from(out[row * width + head * size + i]);
                            assert!((ours - exact).abs() < tolerance, "{packing:?} {} {ours} {exact}", level.name());
                        }
                        for (at, weight) in all.iter().enumerate() {
                            let ours = f64::from(weights[(head * rows + row) * total + at]);
                            assert!((ours - weight / sum).abs() < tolerance * weight / sum + 1e-6, "{packing:?}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn keys_and_values_come_back() {
    let (width, positions) = (64, 19);
    let (keys, values) = (noise(positions * width), noise(positions * width).into_iter().rev().collect::<Vec<_>>());
    for (packing, tolerance) in [(Packing::Float, 0.0), (Packing::Rows, 0.51 / 127.0)] {
        let layout = Layout::new(width, 2, packing);
        let mut blocks = Floats::zeros(2 * layout.block());
        layout.file(Level::detect(), &mut Activations::default(), &mut blocks, 0, &keys, &values);
        let (mut key, mut value) = (vec![0.0; width], vec![0.0; width]);
        for position in 0..positions {
            layout.read(&blocks, position, &mut key, &mut value);
            let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() <= tolerance);
            assert!(near(&key, &keys[position * width..]) && near(&value, &values[position * width..]), "{packing:?}");
        }
    }
}

/// What a cache holds behind its count was said in another life: a draft that was rejected.
#[test]
fn attention_sees_nothing_behind_the_count() {
    let width = 32;
    let (queries, keys) = (noise(width), noise(32 * width));
    for (level, packing) in Level::all().into_iter().flat_map(|l| [(l, Packing::Float), (l, Packing::Rows)]) {
        let layout = Layout::new(width, 2, packing);
        let outs: Vec<Vec<f32>> = [0.0, 1e30]
            .into_iter()
            .map(|left| {
                let mut blocks = Floats::zeros(2 * layout.block());
                blocks.fill(left);
                let rows = &mut Activations::default();
                layout.file(level, rows, &mut blocks, 0, &keys[..19 * width], &keys[..19 * width]);
                let mut out = vec![0.0; width];
                let set = Keys { blocks: &blocks, count: 19, bias: &[] };
                attend(level, layout, &queries, &[set], &mut AttentionScratch::default(), &mut out, None);
                out
            })
            .collect();
        assert_eq!(outs[0], outs[1]);
    }
}

#[test]
fn layer_norm_has_its_mean_and_variance() {
    for level in Level::all() {
        for width in [16, 384, 80] {
            let x: Vec<f32> = noise(3 * width).iter().map(|v| v * 5.0 + 3.0).collect();
            let (weight, bias) = (vec![2.0; width], vec![1.0; width]);
            let mut out = vec![0.0; x.len()];
            layer_norm(level, &x, &weight, &bias, &mut out);
            for (x, out) in x.chunks(width).zip(out.chunks(width)) {
                let mean = x.iter().map(|v| f64::from(*v)).sum::<f64>() / width as f64;
                let variance = x.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / width as f64;
                for (x, out) in x.iter().zip(out) {
                    let exact = (f64::from(*x) - mean) / (variance + 1e-5).sqrt() * 2.0 + 1.0;
                    assert!((f64::from(*out) - exact).abs() < 2e-5);
                }
            }
        }
    }
}

#[test]
fn gelu_is_the_exact_one() {
    // erf by its series, far more exact than what is tested.
    let erf = |x: f64| {
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    };
    for level in Level::all() {
        let xs: Vec<f32> = (-450..=450).map(|i| i as f32 / 100.0).collect();
        let mut ys = xs.clone();
        gelu_in_place(level, &mut ys);
        for (x, y) in xs.iter().zip(ys) {
            let x = f64::from(*x);
            let exact = 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2));
            assert!((f64::from(y) - exact).abs() < 1e-6, "gelu({x}) = {y}, exact {exact}");
        }
    }
}

#[test]
fn masked_sums_leave_out_what_is_masked() {
    for level in Level::all() {
        for width in [1, 7, 16, 33, 1500] {
            let x: Vec<f32> = noise(width).iter().map(|v| v * 20.0).collect();
            let mask: Vec<f32> = (0..width).map(|i| if i % 5 == 4 { f32::NEG_INFINITY } else { 0.0 }).collect();
            let kept: Vec<f32> = x.iter().zip(&mask).filter(|(_, m)| **m == 0.0).map(|(x, _)| *x).collect();
            let top = kept.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
            assert_eq!(masked_max(level, &x, &mask), top);
            let exact: f64 = kept.iter().map(|v| f64::from(v - top).exp()).sum();
            assert!((f64::from(masked_sum_exp(level, &x, &mask, top)) - exact).abs() < 1e-5 * exact);
        }
    }
}

#[test]
fn every_form_is_unpacked_alike_on_every_level() {
    for bits in (0..=u16::MAX).collect::<Vec<_>>().chunks(33) {
        let bytes: Vec<u8> = bits.iter().flat_map(|v| v.to_le_bytes()).collect();
        for form in [Form::F16, Form::Bf16] {
            for level in Level::all() {
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
    for level in Level::all() {
        let mut out = [0.0; 32];
        dequantise(level, Form::Q8_0, &block, &mut out); // the scale is 0.5
        assert!(out.iter().zip(0..32).all(|(v, i)| *v == 0.5 * f32::from((i * 8 - 128) as i16)));
    }
}

/// Quantised by candle, unpacked by it and by us.
#[test]
fn blocks_are_unpacked_as_candle_does() {
    use candle_core::quantized::{GgmlDType, QTensor};
    use candle_core::{Device, Tensor};

    let values: Vec<f32> = noise(8 * 512).iter().enumerate().map(|(i, v)| v * (1.0 + (i / 64) as f32)).collect();
    let tensor = Tensor::from_vec(values, (8, 512), &Device::Cpu).unwrap();
    for (form, theirs) in [
        (Form::Q8_0, GgmlDType::Q8_0),
        (Form::Q4_0, GgmlDType::Q4_0),
        (Form::Q4_1, GgmlDType::Q4_1),
        (Form::Q5_0, GgmlDType::Q5_0),
        (Form::Q5_1, GgmlDType::Q5_1),
        (Form::Q2K, GgmlDType::Q2K),
        (Form::Q3K, GgmlDType::Q3K),
        (Form::Q4K, GgmlDType::Q4K),
        (Form::Q5K, GgmlDType::Q5K),
        (Form::Q6K, GgmlDType::Q6K),
    ] {
        let stored = QTensor::quantize(&tensor, theirs).unwrap();
        let exact = stored.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let bytes = stored.data().unwrap();
        assert_eq!(bytes.len(), form.bytes(8 * 512));
        for level in Level::all() {
            let mut out = vec![0.0; 8 * 512];
            dequantise(level, form, &bytes, &mut out);
            assert_eq!(out, exact, "{} on {}", form.name(), level.name());
        }
    }
}

#[test]
fn rows_of_bytes_are_divided_by_their_scale() {
    let row = |scale: f32, bytes: [i8; 5]| scale.to_le_bytes().into_iter().chain(bytes.map(|b| b as u8));
    let bytes: Vec<u8> = row(2.0, [-128, -1, 0, 1, 127]).chain(row(0.5, [1, 2, 3, 4, 5])).collect();
    for level in Level::all() {
        let mut out = [0.0; 10];
        dequantise(level, Form::Int8, &bytes, &mut out);
        assert_eq!(out, [-64.0, -0.5, 0.0, 0.5, 63.5, 2.0, 4.0, 6.0, 8.0, 10.0]);
    }
}

#[test]
fn what_is_not_finite_neither_panics_nor_wins() {
    for level in Level::all() {
        let xs = [f32::NAN, f32::NEG_INFINITY, 1.0, f32::NAN, -3.0];
        assert_eq!(masked_max(level, &xs, &[0.0; 5]), 1.0);
        let mut x = noise(2 * 32);
        (x[3], x[40], x[50]) = (f32::NAN, f32::INFINITY, f32::NEG_INFINITY);
        for packing in [Packing::Float, Packing::Rows, Packing::Blocks] {
            let out = multiply(level, &pack(packing, 16, 32, &noise(16 * 32)), &x, None, Finish::Store);
            assert!(out.iter().all(|v| !v.is_finite()), "{packing:?} {} makes numbers of what is none", level.name());
        }
    }
}

#[test]
fn memory_starts_on_a_cache_line() {
    let mut floats = Floats::zeros(5);
    for length in [5, 1000, 3, 40_000] {
        floats.resize(length);
        assert_eq!((floats.len(), floats.as_ptr().addr() % 64), (length, 0));
    }
}
