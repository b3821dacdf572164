//! Numbers in as few bytes as say them exactly.

use std::ops::Range;

/// Numbers of rows: what comes out is what went in, bit for bit.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::train) enum Column {
    /// So many rows with the same number.
    Same(f64, usize),
    F32(Vec<f32>),
    F64(Vec<f64>),
}

impl Column {
    pub(in crate::train) fn of(values: Vec<f64>) -> Column {
        if let Some(first) = values.first()
            && values.iter().all(|value| value.to_bits() == first.to_bits())
        {
            return Column::Same(*first, values.len());
        }
        match values.iter().all(|value| is_narrow(*value)) {
            true => Column::F32(values.into_iter().map(|value| value as f32).collect()),
            false => Column::F64(values),
        }
    }

    pub(in crate::train) fn push(&mut self, value: f64) {
        match self {
            Column::F32(values) if is_narrow(value) => values.push(value as f32),
            Column::F64(values) => values.push(value),
            _ => {
                let mut values = std::mem::take(self).into_values();
                values.push(value);
                *self = Column::F64(values);
            }
        }
    }

    pub(in crate::train) fn into_values(self) -> Vec<f64> {
        match self {
            Column::Same(value, n) => vec![value; n],
            Column::F32(values) => values.into_iter().map(f64::from).collect(),
            Column::F64(values) => values,
        }
    }

    pub(in crate::train) fn len(&self) -> usize {
        match self {
            Column::Same(_, n) => *n,
            Column::F32(values) => values.len(),
            Column::F64(values) => values.len(),
        }
    }

    #[inline]
    pub(in crate::train) fn get(&self, row: usize) -> f64 {
        match self {
            Column::Same(value, _) => *value,
            Column::F32(values) => values[row].into(),
            Column::F64(values) => values[row],
        }
    }

    /// Of some rows.
    ///
    /// * `room`: for those that have to be made.
    pub(in crate::train) fn rows<'c>(&'c self, rows: Range<usize>, room: &'c mut Vec<f64>) -> &'c [f64] {
        room.clear();
        match self {
            Column::Same(value, _) => room.resize(rows.len(), *value),
            Column::F32(values) => room.extend(values[rows].iter().map(|value| f64::from(*value))),
            Column::F64(values) => return &values[rows],
        }
        room
    }
}

impl Default for Column {
    fn default() -> Column {
        Column::F32(Vec::new())
    }
}

/// Whether 32 bits say it.
fn is_narrow(value: f64) -> bool {
    f64::from(value as f32).to_bits() == value.to_bits()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_out_is_what_went_in() {
        // Values and the bytes of each.
        let cases: [(&[f64], usize); 7] = [
            (&[], 4),
            (&[1.0; 5], 0),
            (&[0.0, -0.0], 4),
            (&[1.0, 2.5, -1e30f32 as f64], 4),
            (&[1.0, 0.1], 8),
            (&[1e-300, 1.0], 8),
            (&[16_777_217.0, 1.0], 8),
        ];
        for (values, bytes) in cases {
            let column = Column::of(values.to_vec());
            let found = match &column {
                Column::Same(..) => 0,
                Column::F32(_) => 4,
                Column::F64(_) => 8,
            };
            assert_eq!(found, bytes, "{column:?}");
            let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            assert_eq!(column.len(), values.len());
            let mut pushed = Column::default();
            values.iter().for_each(|value| pushed.push(*value));
            assert!(matches!(pushed, Column::F64(_)) == (bytes == 8) && bits(&pushed.into_values()) == bits(values));
            assert_eq!(bits(&column.clone().into_values()), bits(values));
            assert_eq!(bits(column.rows(0..values.len(), &mut Vec::new())), bits(values));
            assert_eq!(bits(&(0..values.len()).map(|row| column.get(row)).collect::<Vec<_>>()), bits(values));
        }
    }
}
