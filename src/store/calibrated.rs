//! The maps of a calibrated model as arrays, beside those of the model itself.
//!
//! | in `params/` | what it is |
//! |---|---|
//! | `calibration_a`, `calibration_b` | (maps), platt: probability = 1/(1 + exp(−a·score − b)) |
//! | `calibration_points` | (maps), isotonic: points of each |
//! | `calibration_x`, `calibration_y` | the points of all maps: scores and probabilities, with straight lines between |
//!
//! Two classes have one map, of the score of the second; more have one each.

use super::model::misfit;
use super::{Array, ModelFile};
use crate::config::Calibrate;
use crate::error::Result;
use crate::model::CalibrationMap;

pub(super) fn to_arrays(maps: &[CalibrationMap]) -> Vec<(String, Array)> {
    let (mut a, mut b, mut points, mut x, mut y) = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for map in maps {
        match map {
            CalibrationMap::Platt { a: of_score, b: alone } => {
                a.push(*of_score);
                b.push(*alone);
            }
            CalibrationMap::Isotonic { x: scores, y: probabilities } => {
                points.push(scores.len() as u64);
                x.extend_from_slice(scores);
                y.extend_from_slice(probabilities);
            }
        }
    }
    let f64s = |name: &str, values: Vec<f64>| (name.to_string(), Array::F64 { shape: vec![values.len()], values });
    if points.is_empty() {
        return vec![f64s("calibration_a", a), f64s("calibration_b", b)];
    }
    let points = Array::U64 { shape: vec![points.len()], values: points };
    vec![("calibration_points".to_string(), points), f64s("calibration_x", x), f64s("calibration_y", y)]
}

/// Errors: arrays that are not there, or make no maps.
pub(super) fn from_file(file: &ModelFile, method: Calibrate, n_maps: usize) -> Result<Vec<CalibrationMap>> {
    let is_finite = |values: &[f64]| values.iter().all(|value| value.is_finite());
    let one_a_score = format!("{n_maps} finite numbers, one a score");
    if method == Calibrate::Platt {
        let (a, b) = (file.f64("calibration_a")?.1, file.f64("calibration_b")?.1);
        for (name, values) in [("calibration_a", a), ("calibration_b", b)] {
            if values.len() != n_maps || !is_finite(values) {
                return Err(misfit(name, &one_a_score));
            }
        }
        return Ok(a.iter().zip(b).map(|(a, b)| CalibrationMap::Platt { a: *a, b: *b }).collect());
    }
    let points = file.u64("calibration_points")?.1;
    let (mut x, mut y) = (file.f64("calibration_x")?.1, file.f64("calibration_y")?.1);
    if points.len() != n_maps {
        return Err(misfit("calibration_points", &format!("{n_maps} entries, one a score")));
    }
    let mut maps = Vec::with_capacity(n_maps);
    for n in points {
        let n = usize::try_from(*n).unwrap_or(usize::MAX);
        let taken = x.split_at_checked(n).zip(y.split_at_checked(n)).filter(|_| n > 0);
        let Some(((of_x, rest_x), (of_y, rest_y))) = taken else {
            return Err(misfit("calibration_points", "as many points as there are, at least one a map"));
        };
        if !is_finite(of_x) || !of_x.windows(2).all(|pair| pair[0] < pair[1]) {
            return Err(misfit("calibration_x", "rising finite numbers"));
        }
        if !of_y.iter().all(|y| (0.0..=1.0).contains(y)) || !of_y.windows(2).all(|pair| pair[0] <= pair[1]) {
            return Err(misfit("calibration_y", "probabilities that do not fall"));
        }
        maps.push(CalibrationMap::Isotonic { x: of_x.to_vec(), y: of_y.to_vec() });
        (x, y) = (rest_x, rest_y);
    }
    Ok(maps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_come_back_and_damaged_ones_are_named() {
        let platt = vec![CalibrationMap::Platt { a: 1.5, b: -0.0 }, CalibrationMap::Platt { a: 0.1 + 0.2, b: 3.0 }];
        let isotonic = vec![
            CalibrationMap::Isotonic { x: vec![-1.0, 0.5], y: vec![0.25, 1.0] },
            CalibrationMap::Isotonic { x: vec![0.0], y: vec![0.5] },
        ];
        let file = |maps: &[CalibrationMap]| ModelFile { arrays: to_arrays(maps), ..ModelFile::default() };
        assert_eq!(from_file(&file(&platt), Calibrate::Platt, 2), Ok(platt.clone()));
        assert_eq!(from_file(&file(&isotonic), Calibrate::Isotonic, 2), Ok(isotonic.clone()));
        let refused =
            |maps: &[CalibrationMap], method, n_maps| from_file(&file(maps), method, n_maps).unwrap_err().to_string();
        assert!(refused(&platt, Calibrate::Platt, 3).contains("calibration_a"));
        assert!(refused(&platt, Calibrate::Isotonic, 2).contains("calibration_points"));
        assert!(refused(&isotonic, Calibrate::Isotonic, 1).contains("calibration_points"));
        let falling = [CalibrationMap::Isotonic { x: vec![0.0, 1.0], y: vec![0.5, 0.25] }];
        assert!(refused(&falling, Calibrate::Isotonic, 1).contains("calibration_y"));
        let unordered = [CalibrationMap::Isotonic { x: vec![1.0, 0.0], y: vec![0.5, 0.75] }];
        assert!(refused(&unordered, Calibrate::Isotonic, 1).contains("calibration_x"));
        let mut short = file(&isotonic);
        short.arrays.retain(|(name, _)| name != "calibration_y");
        assert!(from_file(&short, Calibrate::Isotonic, 2).unwrap_err().to_string().contains("calibration_y"));
    }
}
