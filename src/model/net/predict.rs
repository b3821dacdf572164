//! Scores of rows.

use super::{Convolution, Layer, Network, Strip, Turned};
use crate::model::Row;
use crate::objective::{Gaussian, Objective};

/// Values that a strip of rows to be scored takes, about: they stay in the second cache.
const STRIP_VALUES: usize = 1 << 17;

impl Network {
    /// Rows of a strip that stays in cache, at most `most`; whole tiles.
    pub fn strip_rows(&self, most: usize) -> usize {
        // Many parameters are worth more rows at once than fit: they pass by for each strip.
        (STRIP_VALUES.max(self.params.len()) / self.values_of_row().max(1)).clamp(8, most.max(8)) / 8 * 8
    }

    /// A row goes into a place of a strip.
    pub fn put(row: Row<'_>, strip: &mut Strip, slot: usize) {
        let mut values = strip.values_mut(0);
        let to = values.row(slot);
        match row {
            Row::Dense(values) => to.copy_from_slice(values),
            Row::Sparse(columns, values) => {
                to.fill(0.0);
                columns.iter().zip(values).for_each(|(column, value)| to[*column as usize] = *value);
            }
        }
    }

    /// Scores of some rows, (rows, n_scores), in the unit of the target. Not collective.
    ///
    /// The bits of a row's scores do not depend on the other rows.
    pub fn scores<'r>(&self, rows: impl ExactSizeIterator<Item = Row<'r>>, scores: &mut [f64]) {
        let mut scores = scores.chunks_exact_mut(self.n_scores());
        self.each_output(rows, |out| {
            let of_row = scores.next().into_iter().flatten();
            of_row.zip(out).enumerate().for_each(|(at, (score, out))| *score = self.score(at, *out));
        });
    }

    /// What comes out for some rows, (rows, n_outputs), in the unit of the loss of training. Not collective.
    pub fn outputs<'r>(&self, rows: impl ExactSizeIterator<Item = Row<'r>>, outputs: &mut [f64]) {
        let mut outputs = outputs.chunks_exact_mut(self.n_outputs());
        self.each_output(rows, |out| {
            let of_row = outputs.next().into_iter().flatten();
            of_row.zip(out).for_each(|(output, out)| *output = f64::from(*out));
        });
    }

    /// Score and variance of some rows, in the unit of the target and its square. Not collective.
    ///
    /// # Panics
    /// If the network does not [have variances](Self::has_variance).
    pub fn scores_and_variances<'r>(
        &self,
        rows: impl ExactSizeIterator<Item = Row<'r>>,
        scores: &mut [f64],
        variances: &mut [f64],
    ) {
        assert!(self.has_variance, "a network of a score without variance");
        let mut of_rows = scores.iter_mut().zip(variances);
        self.each_output(rows, |out| {
            let mut pair = [f64::from(out[0]), f64::from(out[1])];
            Gaussian::default().to_prediction(&mut pair);
            if let Some((score, variance)) = of_rows.next() {
                let scale = self.unit(0).scale;
                (*score, *variance) = (self.score(0, out[0]), pair[1] * scale * scale);
            }
        });
    }

    /// Shows what comes out for each row, in order.
    fn each_output<'r>(&self, rows: impl ExactSizeIterator<Item = Row<'r>>, mut show: impl FnMut(&[f32])) {
        let mut strip = self.strip(self.strip_rows(rows.len()), false);
        let mut rows = rows.peekable();
        while rows.peek().is_some() {
            strip.n_rows = 0;
            while strip.n_rows < strip.capacity()
                && let Some(row) = rows.next()
            {
                let slot = strip.n_rows;
                Network::put(row, &mut strip, slot);
                strip.n_rows += 1;
            }
            self.forward(0..self.layers().len(), None, &[], &Turned::default(), &mut strip);
            let out = strip.values(self.layers().len());
            (0..strip.n_rows).for_each(|row| show(out.row(row)));
        }
    }

    /// For people.
    pub fn describe(&self) -> String {
        self.layers().iter().map(Layer::describe).collect::<Vec<_>>().join(", ")
    }

    /// The score that a number coming out stands for.
    pub fn score(&self, at: usize, out: f32) -> f64 {
        let unit = self.unit(at);
        f64::from(out) * unit.scale + unit.origin
    }
}

impl Layer {
    /// For people.
    pub fn describe(&self) -> String {
        match self {
            Layer::Embedding(layer) => {
                let of = |column: &super::Embedded| format!("{} × {}", column.n_categories, column.width);
                format!("embedding {}", layer.columns().iter().map(of).collect::<Vec<_>>().join(" + "))
            }
            Layer::Dense(layer) => format!("dense {} → {}", layer.inputs, layer.outputs),
            Layer::Convolution(layer) => {
                let Convolution { height, width, channels, outputs, .. } = layer;
                format!("convolution 3 × 3 of {height} × {width} × {channels} → {outputs}")
            }
            Layer::Pooling(_) => "pooling 2 × 2".to_string(),
            Layer::Activate(layer) => format!("{:?}", layer.by).to_lowercase(),
            Layer::Dropout(layer) => format!("dropout {}", layer.rate),
            Layer::LayerNorm(_) => "layer norm".to_string(),
            Layer::BatchNorm(_) => "batch norm".to_string(),
            Layer::Skip { .. } => "residual".to_string(),
        }
    }
}
