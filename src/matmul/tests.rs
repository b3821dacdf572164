//! Against plain loops of fused multiply-adds: bit for bit.

use super::*;
use crate::rng::{Draws, Stream};
use half::bf16;

fn numbers(n: usize, of: u64) -> Vec<f32> {
    let draws = Draws::new(23, Stream::Synthetic);
    (0..n).map(|i| draws.normal(i as u64, of) as f32).collect()
}

/// Sizes around those of tiles, vectors, panels and blocks.
const SHAPES: [(usize, usize, usize); 11] = [
    (2, 0, 3),
    (1, 1, 1),
    (3, 5, 2),
    (8, 16, 32),
    (9, 300, 10),
    (17, 7, 33),
    (4, 257, 48),
    (13, 64, 65),
    (25, 12, 31),
    (131, 193, 34),
    (257, 3, 1),
];

#[test]
fn products_have_the_bits_of_the_plain_chain() {
    for (m, k, n) in SHAPES {
        let (ld, ldo) = (k + 3, n + 5);
        let (left, bias) = (numbers(m * ld, 1), numbers(n, 3));
        let panels = Panels::new(k, n);
        let rows = numbers(k * n, 2);
        let (mut wide, mut narrow) = (vec![0.0; k * n], vec![bf16::ZERO; k * n]);
        panels.pack(&rows, &mut wide);
        round_all(&wide, &mut narrow);
        // The row in three segments that do not follow each other.
        let cut = [0, k / 3, k / 2, k];
        let segments: Vec<Segment> = if k < 6 {
            vec![Segment { offset: 0, len: k }]
        } else {
            (0..3).map(|s| Segment { offset: cut[s] + s, len: cut[s + 1] - cut[s] }).collect()
        };
        for (with_bias, start, weights) in [
            (false, Start::Zero, Weights::Wide(&wide)),
            (true, Start::Bias(&bias), Weights::Wide(&wide)),
            (true, Start::Bias(&bias), Weights::Narrow(&narrow)),
        ] {
            let of_row = |at: usize| match weights {
                Weights::Wide(_) => rows[at],
                Weights::Narrow(_) => bf16::from_f32(rows[at]).to_f32(),
            };
            let mut out = vec![f32::NAN; m * ldo];
            multiply(&left, |r| r * ld, m, &segments, panels, weights, start, &mut out, |r| r * ldo);
            for i in 0..m {
                for c in 0..n {
                    let mut plain = if with_bias { bias[c] } else { 0.0 };
                    let mut j = 0;
                    for segment in &segments {
                        for s in 0..segment.len {
                            plain = left[i * ld + segment.offset + s].mul_add(of_row(j * n + c), plain);
                            j += 1;
                        }
                    }
                    assert_eq!(out[i * ldo + c].to_bits(), plain.to_bits(), "({i}, {c}) of {m} × {k} × {n}");
                }
                assert!(
                    out[i * ldo + n..(i + 1) * ldo].iter().all(|v| v.is_nan()),
                    "nothing beside the row is written"
                );
            }
            // A row alone has the bits it has among others.
            let mut alone = vec![0.0; n];
            multiply(&left, |_| (m - 1) * ld, 1, &segments, panels, weights, start, &mut alone, |_| 0);
            assert_eq!(alone, out[(m - 1) * ldo..][..n]);
        }
    }
}

#[test]
fn no_rows_and_no_columns_are_no_work() {
    for (n_rows, n) in [(0, 3), (2, 0)] {
        let (panels, weights) = (Panels::new(2, n), numbers(2 * n, 1));
        let (row, mut out) = ([Segment { offset: 0, len: 2 }], [f32::NAN; 2]);
        let left = numbers(2 * n_rows, 2);
        multiply(&left, |r| 2 * r, n_rows, &row, panels, Weights::Wide(&weights), Start::Zero, &mut out, |r| r);
        assert!(out.iter().all(|value| value.is_nan()));
    }
}

#[test]
fn slabs_have_the_bits_of_the_plain_chain() {
    for (m, k, width) in [(1, 1, 1), (3, 29, 32), (128, 96, 32), (7, 13, 16), (5, 25, 10), (0, 3, 4), (9, 12, 31)] {
        let (ld, ldr) = (k + 2, width + 1);
        let (left, right) = (numbers(m * ld + 1, 4), numbers(m * ldr, 5));
        let before = numbers(k * width, 7);
        let mut out = before.clone();
        // In two parts, as rows of several strips come.
        let half = m / 2;
        add_slab(&left, |r| r * ld + 1, &right, |r| r * ldr, half, width, &mut out);
        add_slab(&left, |r| (half + r) * ld + 1, &right, |r| (half + r) * ldr, m - half, width, &mut out);
        for j in 0..k {
            for c in 0..width {
                let plain =
                    (0..m).fold(before[j * width + c], |sum, r| left[r * ld + 1 + j].mul_add(right[r * ldr + c], sum));
                assert_eq!(out[j * width + c].to_bits(), plain.to_bits(), "({j}, {c}) of {m} rows");
            }
        }
    }
}

#[test]
fn panels_hold_every_element_once_and_turn_round() {
    for (k, n) in [(1, 1), (5, 32), (7, 70), (33, 64), (40, 3)] {
        let (panels, turned) = (Panels::new(k, n), Panels::new(n, k));
        let rows = numbers(k * n, 6);
        let (mut packed, mut again, mut transposed) = (vec![0.0; k * n], vec![0.0; k * n], vec![0.0; k * n]);
        panels.pack(&rows, &mut packed);
        panels.unpack(&packed, &mut again);
        assert_eq!(rows, again);
        (0..turned.count()).for_each(|p| panels.transpose_panel(&packed, p, &mut transposed[turned.panel(p)]));
        for i in 0..k {
            for c in 0..n {
                assert_eq!(packed[panels.at(i, c)], rows[i * n + c]);
                assert_eq!(transposed[turned.at(c, i)], rows[i * n + c]);
            }
        }
    }
}

#[test]
fn sixteen_bits_are_the_nearest_ones() {
    let halfway = [0x3f80_8000, 0x3f81_8000, 0x3f80_7fff, 0x3f80_8001, 0x0000_8000, 0x0001_8000];
    let edges = [0, 1, 0x007f_ffff, 0x7f7f_7fff, 0x7f7f_8000, 0x7f7f_ffff, 0x7f80_0000, 0x7f80_0001, 0x7fc0_0000];
    let all = halfway.into_iter().chain(edges).chain((0..0x7fff_ffff).step_by(65_521));
    for bits in all.flat_map(|bits: u32| [bits, bits | 1 << 31]) {
        let x = f32::from_bits(bits);
        let (found, wanted) = (round(x), bf16::from_f32(x));
        assert_eq!(found.to_bits(), wanted.to_bits(), "{x:e}, {bits:#x}");
        assert_eq!(found.is_nan(), x.is_nan());
        assert!(x.is_nan() || widen(found).to_bits() == wanted.to_f32().to_bits());
    }
    let values = numbers(77, 8);
    let (mut narrow, mut between, mut in_place) = (vec![bf16::ZERO; 77], vec![0.0; 77], values.clone());
    round_all(&values, &mut narrow);
    round_between(&values, &mut between);
    round_in_place(&mut in_place);
    let wanted: Vec<f32> = values.iter().map(|value| bf16::from_f32(*value).to_f32()).collect();
    assert_eq!((&between, &in_place), (&wanted, &wanted));
    assert_eq!(narrow.into_iter().map(widen).collect::<Vec<f32>>(), wanted);
}
