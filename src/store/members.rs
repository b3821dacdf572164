//! The models of an ensemble as groups of its file, and how they count.
//!
//! | in the file | what it is |
//! |---|---|
//! | `member_names` | in the order in which they count |
//! | `members/000`, `members/001`, … | each laid out as a model file is |
//! | `final` | of a stack: the last model, whose features are the members' predictions |
//! | `params/member_weight` | (members): how much each counts |
//! | `params/member_columns_N` | places of the columns that member N sees; absent: all |
//! | `combine` | `mean`, `vote` or `stack` |

use super::model::{from_file as model_from, misfit, to_file};
use super::{Array, ModelFile};
use crate::data::names::Inputs;
use crate::error::{Error, InContext, Result};
use crate::model::ensemble::{places_of, stacked_names, stacked_width};
use crate::model::{ColumnCode, Combine, Ensemble, Member, TargetCoding};

/// The group of a member; the last of a thousand is `members/999`, the next `members/1000`.
fn group_of(member: usize) -> String {
    format!("members/{member:03}")
}

pub(super) fn to_arrays(ensemble: &Ensemble) -> Vec<(String, Array)> {
    let weights: Vec<f64> = ensemble.members.iter().map(|member| member.weight).collect();
    let mut arrays = vec![("member_weight".to_string(), Array::F64 { shape: vec![weights.len()], values: weights })];
    for (i, member) in ensemble.members.iter().enumerate() {
        if let Some(columns) = &member.columns {
            let values: Vec<u64> = columns.iter().map(|column| u64::from(*column)).collect();
            arrays.push((format!("member_columns_{i}"), Array::U64 { shape: vec![values.len()], values }));
        }
    }
    arrays
}

pub(super) fn to_parts(ensemble: &Ensemble) -> Result<Vec<(String, ModelFile)>> {
    let members = ensemble.members.iter().enumerate();
    let mut parts = members
        .map(|(i, member)| Ok((group_of(i), to_file(&member.model, &Inputs::default())?)))
        .collect::<Result<Vec<_>>>()?;
    if let Combine::Stack(last) = &ensemble.combine {
        parts.push(("final".to_string(), to_file(last, &Inputs::default())?));
    }
    Ok(parts)
}

/// The ensemble in a file whose table has these columns. Errors: members that are not there, or do not fit the table or one another.
pub(super) fn from_file(file: &ModelFile, columns: &[ColumnCode], target: &TargetCoding) -> Result<Ensemble> {
    let part = |group: &str| {
        let found = file.parts.iter().find(|(name, _)| name == group).map(|(_, part)| part);
        let part = found.ok_or_else(|| Error::data("the model file lacks this model"));
        part.and_then(model_from).in_dataset(group)
    };
    let (names, (_, weights)) = (file.strings("member_names")?, file.f64("member_weight")?);
    if names.is_empty() || names.len() != weights.len() {
        return Err(misfit("member_weight", &format!("one number for each of {} members", names.len().max(1))));
    }
    if !weights.iter().all(|weight| weight.is_finite() && *weight >= 0.0) {
        return Err(misfit("member_weight", "numbers of 0 or more"));
    }
    let mut members = Vec::with_capacity(names.len());
    for (i, (name, weight)) in names.iter().zip(weights).enumerate() {
        let array = format!("member_columns_{i}");
        let seen: Option<Vec<u32>> = match file.array(&array) {
            Ok(_) => Some(file.u64(&array)?.1.iter().map(|column| *column as u32).collect()),
            Err(_) => None,
        };
        let all: Vec<u32> = (0..columns.len() as u32).collect();
        let places = seen.as_ref().unwrap_or(&all);
        let fits = places.windows(2).all(|pair| pair[0] < pair[1]);
        if !fits || places.last().is_some_and(|last| *last as usize >= columns.len()) {
            return Err(misfit(&array, "ascending places of columns"));
        }
        let group = group_of(i);
        let model = part(&group)?;
        let own = &model.preprocess.columns;
        let same = |(own, place): (&ColumnCode, &u32)| {
            let column = &columns[*place as usize];
            own.name == column.name && own.is_text() == column.is_text()
        };
        if own.len() != places.len() || !own.iter().zip(places).all(same) {
            return Err(misfit(&group, "a model of the columns that the ensemble has"));
        }
        if places_of(&model.target, target).is_none() {
            return Err(misfit(&group, "a model of the classes that the ensemble has"));
        }
        members.push(Member { name: name.clone(), model, columns: seen, weight: *weight });
    }
    let n_classes = target.n_classes();
    let combine = match file.attribute("combine") {
        Some("mean") => Combine::Mean,
        Some("vote") if n_classes > 0 => Combine::Vote,
        Some("stack") => {
            let last = part("final")?;
            let wanted = stacked_names(names.iter().map(String::as_str), target);
            let found: Vec<&str> = last.preprocess.columns.iter().map(|column| column.name.as_str()).collect();
            if found != wanted || last.target != *target || last.preprocess.has_text() {
                return Err(misfit("final", "a model of what the members predict"));
            }
            Combine::Stack(Box::new(last))
        }
        other => return Err(Error::data(format!("combines its members by '{}'", other.unwrap_or("nothing")))),
    };
    if !matches!(combine, Combine::Stack(_)) && weights.iter().all(|weight| *weight == 0.0) {
        return Err(misfit("member_weight", "some number above 0"));
    }
    Ok(Ensemble { n_features: columns.len(), n_scores: stacked_width(n_classes), members, combine })
}
