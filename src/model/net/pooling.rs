//! The largest of each 2 × 2 places of an image.

use super::operation::{Operation, Pass, Values, ValuesMut};
use multiversion::multiversion;

/// Images (height, width, channels) of rows become (⌊height/2⌋, ⌊width/2⌋, channels): an odd last line or column is left out. Of equal
/// values the first counts, line by line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pooling {
    pub height: usize,
    pub width: usize,
    pub channels: usize,
}

impl Pooling {
    /// The two lines under line `y` of what comes out.
    fn lines(&self, y: usize) -> [std::ops::Range<usize>; 2] {
        let of_line = self.width * self.channels;
        [2 * y * of_line..(2 * y + 1) * of_line, (2 * y + 1) * of_line..(2 * y + 2) * of_line]
    }
}

/// What may be taken up by [`Pooling`] is one of these, by its place.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl", "x86_64+avx2", "aarch64+neon"))]
fn largest(channels: usize, above: &[f32], below: &[f32], largest: &mut [f32], chosen: &mut [f32]) {
    let pairs = above.chunks_exact(2 * channels).zip(below.chunks_exact(2 * channels));
    let outs = largest.chunks_exact_mut(channels).zip(chosen.chunks_exact_mut(channels));
    for ((above, below), (largest, chosen)) in pairs.zip(outs) {
        let ((a, b), (c, d)) = (above.split_at(channels), below.split_at(channels));
        for i in 0..channels {
            let (mut value, mut place) = (a[i], 0.0);
            (value, place) = if b[i] > value { (b[i], 1.0) } else { (value, place) };
            (value, place) = if c[i] > value { (c[i], 2.0) } else { (value, place) };
            (value, place) = if d[i] > value { (d[i], 3.0) } else { (value, place) };
            (largest[i], chosen[i]) = (value, place);
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl", "x86_64+avx2", "aarch64+neon"))]
fn spread(channels: usize, slopes: &[f32], chosen: &[f32], above: &mut [f32], below: &mut [f32]) {
    let pairs = above.chunks_exact_mut(2 * channels).zip(below.chunks_exact_mut(2 * channels));
    let outs = slopes.chunks_exact(channels).zip(chosen.chunks_exact(channels));
    for ((above, below), (slopes, chosen)) in pairs.zip(outs) {
        let ((a, b), (c, d)) = (above.split_at_mut(channels), below.split_at_mut(channels));
        for i in 0..channels {
            let of = |place: f32| if chosen[i] == place { slopes[i] } else { 0.0 };
            (a[i], b[i], c[i], d[i]) = (of(0.0), of(1.0), of(2.0), of(3.0));
        }
    }
}

impl Operation for Pooling {
    fn width(&self) -> usize {
        (self.height / 2) * (self.width / 2) * self.channels
    }

    /// Which of the four was the largest, from 0 to 3.
    fn kept(&self) -> usize {
        self.width()
    }

    fn forward(&self, pass: &Pass<'_>, _: &[f32], input: Values<'_>, mut output: ValuesMut<'_>, kept: &mut [f32]) {
        let of_line = (self.width / 2) * self.channels;
        for (row, kept) in (0..pass.rows.len()).zip(kept.chunks_exact_mut(self.width())) {
            let (x, y) = (input.row(row), output.row(row));
            for (line, (y, kept)) in y.chunks_exact_mut(of_line).zip(kept.chunks_exact_mut(of_line)).enumerate() {
                let [above, below] = self.lines(line);
                largest(self.channels, &x[above], &x[below], y, kept);
            }
        }
    }

    fn backward(
        &self,
        pass: &Pass<'_>,
        _: &[f32],
        _: Values<'_>,
        _: Values<'_>,
        kept: &mut [f32],
        d_output: Values<'_>,
        mut d_input: ValuesMut<'_>,
    ) {
        let of_line = (self.width / 2) * self.channels;
        for (row, kept) in (0..pass.rows.len()).zip(kept.chunks_exact(self.width())) {
            let (dy, dx) = (d_output.row(row), d_input.row(row));
            // What was left out has no slope; the loop writes all else.
            let last = 2 * (self.height / 2) * self.width * self.channels;
            dx[last..].fill(0.0);
            for (line, (dy, kept)) in dy.chunks_exact(of_line).zip(kept.chunks_exact(of_line)).enumerate() {
                let [above, below] = self.lines(line);
                let (above, below) = dx[above.start..below.end].split_at_mut(above.len());
                if self.width % 2 == 1 {
                    above[2 * of_line..].fill(0.0);
                    below[2 * of_line..].fill(0.0);
                }
                spread(self.channels, dy, kept, above, below);
            }
        }
    }
}
