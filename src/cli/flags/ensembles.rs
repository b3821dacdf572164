//! The words of ensembles and of their members.

use super::{ModelFlags, whole, word};
use crate::config::{Kind, VoteWeights, Voting};
use clap::{Args, Parser};
use std::path::PathBuf;

/// Settings of `bag`, `adaboost`, `vote` and `stack`.
#[derive(Clone, Debug, Default, PartialEq, Args)]
#[command(next_help_heading = "Ensembles")]
pub struct EnsembleFlags {
    /// bag, adaboost: what each member is. The learner's own flags stand beside it (--learner boost --rounds 20) or inside it
    /// (--learner 'boost --rounds 20'); in a job file, also a table [learner] with `kind`.
    #[arg(long, value_name = "KIND")]
    pub learner: Option<String>,
    /// bag: how many; adaboost: at most. Default 10.
    #[arg(long, value_name = "N", value_parser = whole())]
    pub members: Option<u64>,
    /// A member that cannot be trained is left out; fewer than these are an error. Default 1.
    #[arg(long, value_name = "N", value_parser = whole())]
    pub min_members: Option<u64>,
    /// bag: rows drawn for a member, as a share of all. Default 1.
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    pub member_rows: Option<f64>,
    /// bag: columns that a member sees, as a share of all. Default 1.
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    pub member_columns: Option<f64>,
    /// bag, vote: soft, the mean of probabilities or numbers; hard, each member votes for one class. Default soft.
    #[arg(long, value_parser = word::<Voting>)]
    pub voting: Option<Voting>,
    /// vote: equal; search, exact line searches on the rows of --valid-fraction; logistic, coefficients of a linear model on these.
    /// Default equal.
    #[arg(long, value_parser = word::<VoteWeights>)]
    pub vote_weights: Option<VoteWeights>,
    /// adaboost: the weight of each member is multiplied by it. Default 1.
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    pub member_rate: Option<f64>,
    /// vote, stack: a member, its kind and flags: --member 'boost --rounds 20 --name trees'. May be repeated; in a job file, tables
    /// [[member]] with `kind`, flags as keys, and `name`.
    #[arg(long, value_name = "'KIND FLAGS'")]
    pub member: Vec<String>,
    /// vote: a trained model instead of members to train. May be repeated.
    #[arg(long, value_name = "MODEL.h5")]
    pub model: Vec<PathBuf>,
    /// stack: folds whose members have not seen them, which the last learner is trained on. Default 5.
    #[arg(long, value_name = "K", value_parser = whole())]
    pub stack_folds: Option<u64>,
    /// stack: learns from the members' predictions, as --member has it; in a job file, also a table [final]. Default: logistic, linear
    /// for numbers.
    #[arg(long = "final", value_name = "'KIND FLAGS'")]
    pub last: Option<String>,
}

/// The words of one member.
#[derive(Clone, Debug, Parser)]
#[command(name = "member", disable_help_flag = true)]
pub struct MemberWords {
    #[arg(value_name = "KIND", value_parser = word::<Kind>)]
    pub kind: Option<Kind>,
    #[arg(long)]
    pub name: Option<String>,
    #[command(flatten)]
    pub model: ModelFlags,
}
