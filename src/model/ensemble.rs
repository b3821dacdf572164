//! Several models whose predictions are one: a mean, a vote, or what a last model makes of them.

use super::{Model, TargetCoding};

/// Models and how they become one. Members come and count in their order.
#[derive(Clone, Debug, PartialEq)]
pub struct Ensemble {
    /// Columns of the table.
    pub n_features: usize,
    /// 1, or the number of classes if there are more than two.
    pub n_scores: usize,
    pub members: Vec<Member>,
    pub combine: Combine,
}

/// One model of an ensemble.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    pub name: String,
    pub model: Model,
    /// Places of the table's columns that it sees, ascending. None: all.
    pub columns: Option<Vec<u32>>,
    /// How much it counts, 0 or more; nothing in a stack.
    pub weight: f64,
}

/// From the members' predictions to that of the ensemble.
#[derive(Clone, Debug, PartialEq)]
pub enum Combine {
    /// Σ wₘ·pₘ / Σ wₘ, of each class's share or of numbers.
    Mean,
    /// The share of the weight of the members whose most probable class it is.
    Vote,
    /// What this model predicts where its features are the members' predictions, as float32: see [`stacked_names`].
    Stack(Box<Model>),
}

impl Combine {
    /// The word of the model file.
    pub fn name(&self) -> &'static str {
        match self {
            Combine::Mean => "mean",
            Combine::Vote => "vote",
            Combine::Stack(_) => "stack",
        }
    }
}

impl Ensemble {
    /// Hashes what is predicted with: how members are combined, and their digests.
    pub(crate) fn hash(&self, hasher: &mut blake3::Hasher) {
        let mut part = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        part(self.combine.name().as_bytes());
        for member in &self.members {
            part(member.model.digest.as_bytes());
            part(&member.weight.to_bits().to_le_bytes());
            let columns: Vec<u8> = member.columns.iter().flatten().flat_map(|column| column.to_le_bytes()).collect();
            part(&columns);
        }
        if let Combine::Stack(last) = &self.combine {
            part(last.digest.as_bytes());
        }
    }
}

/// Numbers that a member adds to the features of the last model of a stack: its prediction, or the share of class 1 of two, or those of
/// all classes.
pub fn stacked_width(n_classes: usize) -> usize {
    if n_classes > 2 { n_classes } else { 1 }
}

/// Names of the last model's features: `MEMBER`, or `MEMBER[CLASS]` for more than two classes.
pub fn stacked_names<'a>(members: impl Iterator<Item = &'a str>, target: &TargetCoding) -> Vec<String> {
    let classes = target.names();
    let of_member = |member: &str| match classes.len() {
        0..=2 => vec![member.to_string()],
        _ => classes.iter().map(|class| format!("{member}[{class}]")).collect(),
    };
    members.flat_map(of_member).collect()
}

/// The place among `all` of each class of a member; None: it knows others, or numbers where there are classes.
pub fn places_of(of_member: &TargetCoding, all: &TargetCoding) -> Option<Vec<usize>> {
    fn look_up<T: Ord>(some: &[T], all: &[T]) -> Option<Vec<usize>> {
        some.iter().map(|class| all.binary_search(class).ok()).collect()
    }
    match (of_member, all) {
        (TargetCoding::Number, TargetCoding::Number) => Some(Vec::new()),
        (TargetCoding::Integers(some), TargetCoding::Integers(all)) => look_up(some, all),
        (TargetCoding::Strings(some), TargetCoding::Strings(all)) => look_up(some, all),
        _ => None,
    }
}

/// The classes of all members; None: some know numbers, or strings where others know whole numbers.
pub fn union_of<'a>(mut targets: impl Iterator<Item = &'a TargetCoding>) -> Option<TargetCoding> {
    fn merged<T: Ord + Clone>(a: &[T], b: &[T]) -> Vec<T> {
        let mut all = [a, b].concat();
        all.sort_unstable();
        all.dedup();
        all
    }
    let first = targets.next()?.clone();
    targets.try_fold(first, |all, target| match (all, target) {
        (TargetCoding::Number, TargetCoding::Number) => Some(TargetCoding::Number),
        (TargetCoding::Integers(all), TargetCoding::Integers(more)) => Some(TargetCoding::Integers(merged(&all, more))),
        (TargetCoding::Strings(all), TargetCoding::Strings(more)) => Some(TargetCoding::Strings(merged(&all, more))),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_found_by_name_and_others_are_not() {
        let of = |classes: &[i64]| TargetCoding::Integers(classes.to_vec());
        let all = union_of([&of(&[1, 5]), &of(&[-2, 5])].into_iter()).unwrap();
        assert_eq!(all, of(&[-2, 1, 5]));
        assert_eq!(places_of(&of(&[1, 5]), &all), Some(vec![1, 2]));
        assert_eq!(places_of(&of(&[1, 6]), &all), None);
        let strings = TargetCoding::Strings(vec!["1".into(), "5".into()]);
        assert_eq!(places_of(&strings, &all), None);
        assert_eq!(union_of([&all, &strings].into_iter()), None);
        assert_eq!(union_of([&TargetCoding::Number, &TargetCoding::Number].into_iter()), Some(TargetCoding::Number));
    }

    #[test]
    fn a_stack_has_one_feature_for_two_classes_and_one_each_for_more() {
        let names = |target: &TargetCoding| stacked_names(["a", "b"].into_iter(), target);
        assert_eq!(names(&TargetCoding::Integers(vec![0, 1])), ["a", "b"]);
        assert_eq!(names(&TargetCoding::Integers(vec![0, 1, 4])), ["a[0]", "a[1]", "a[4]", "b[0]", "b[1]", "b[4]"]);
        assert_eq!(names(&TargetCoding::Number).len(), 2 * stacked_width(0));
    }
}
