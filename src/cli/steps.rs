//! What was typed for mini-batch solvers, as settings.

use super::flags::StepFlags;
use crate::config::{Sync, TrainConfig};

/// Takes what was typed. Not collective.
pub(super) fn take(config: &mut TrainConfig, flags: &StepFlags) {
    macro_rules! take {
        ($($field:ident)*) => { $(if let Some(value) = flags.$field { config.$field = value; })* };
    }
    macro_rules! take_option {
        ($($field:ident)*) => { $(config.$field = flags.$field;)* };
    }
    take!(schedule global_batch momentum local_after);
    take_option!(epochs learning_rate lanes warm_up scale_rate weight_decay clip_norm beta1 beta2 epsilon average);
    config.nesterov = !flags.no_nesterov;
    config.sync = match (flags.sync_every, flags.sync.as_deref()) {
        (Some(steps), _) => Sync::Every(steps),
        (None, Some("once")) => Sync::Once,
        (None, _) => Sync::Step,
    };
}

/// The settings that there are words for, each with its word and whether it was typed.
pub(super) fn typed(flags: &StepFlags) -> Vec<(&'static str, &'static str, bool)> {
    macro_rules! options {
        ($($field:ident $word:literal)*) => { vec![$((stringify!($field), $word, flags.$field.is_some())),*] };
    }
    let mut all = options!(epochs "epochs" learning_rate "learning-rate" schedule "schedule" warm_up "warm-up" scale_rate "scale-rate"
        global_batch "global-batch" lanes "lanes" local_after "local-after" momentum "momentum" weight_decay "weight-decay" clip_norm "clip-norm"
        beta1 "beta1" beta2 "beta2" epsilon "epsilon" average "average");
    all.push(("sync", "sync-every", flags.sync_every.is_some()));
    all.push(("sync", "sync", flags.sync.is_some()));
    all.push(("nesterov", "no-nesterov", flags.no_nesterov));
    all
}
