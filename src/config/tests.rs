//! Settings that go together, and those that do not.

use super::*;

fn of(kind: Kind) -> TrainConfig {
    TrainConfig { kind, ..TrainConfig::default() }
}

fn refusal(config: TrainConfig) -> String {
    let error = config.resolved().unwrap_err();
    assert_eq!(error.kind().exit_code(), 2);
    error.to_string()
}

#[test]
fn auto_is_settled_by_kind_and_penalty() {
    let solver = |config: TrainConfig| config.resolved().unwrap().solver;
    assert_eq!(solver(of(Kind::Linear)), Solver::Cholesky);
    assert_eq!(solver(TrainConfig { l1: 0.1, ..of(Kind::Linear) }), Solver::Cd);
    for kind in [Kind::Logistic, Kind::Svm, Kind::Poisson] {
        assert_eq!(solver(TrainConfig { l1: 0.1, ..of(kind) }), Solver::Lbfgs);
    }
}

#[test]
fn only_a_solver_that_nobody_chose_changes_for_a_sparse_table() {
    let solver = |config: TrainConfig| config.resolved().unwrap().resolved().unwrap().for_table(true, None).solver;
    assert_eq!(solver(of(Kind::Linear)), Solver::Lbfgs);
    assert_eq!(solver(TrainConfig { l1: 0.1, ..of(Kind::Linear) }), Solver::Lbfgs);
    assert_eq!(solver(TrainConfig { solver: Solver::Qr, ..of(Kind::Linear) }), Solver::Qr);
    let dense = of(Kind::Linear).resolved().unwrap().for_table(false, None);
    assert_eq!((dense.solver, dense.solver_may_change), (Solver::Cholesky, false));
}

#[test]
fn a_batch_that_lanes_do_not_divide_is_refused_with_the_next_that_they_do() {
    let sgd = TrainConfig { solver: Solver::Sgd, ..of(Kind::Logistic) };
    let message = refusal(TrainConfig { global_batch: 1000, lanes: Some(64), ..sgd.clone() });
    assert_eq!(message, "--global-batch 1000 does not divide by 64 lanes; use 960 or 1024, or set --lanes");
    let message = refusal(TrainConfig { global_batch: 3, lanes: Some(7), ..sgd.clone() });
    assert_eq!(message, "--global-batch 3 does not divide by 7 lanes; use 7, or set --lanes");
    for global_batch in [1, 100, 256, 1000, 1024, 4096] {
        let config = TrainConfig { global_batch, ..sgd.clone() }.resolved().unwrap();
        for n_rows in [1, 300, 5_000, 1 << 20] {
            assert_eq!(global_batch % config.n_lanes(n_rows), 0, "batch {global_batch}, {n_rows} rows");
        }
    }
}

#[test]
fn a_solver_that_does_not_fit_is_refused_with_those_that_do() {
    let message = refusal(TrainConfig { solver: Solver::Newton, ..of(Kind::Linear) });
    assert_eq!(
        message,
        "--solver newton does not train 'linear'; choose one of cholesky, qr, cd, lbfgs, sgd, adam, adamw, lamb, lars, adagrad"
    );
    let message = refusal(TrainConfig { solver: Solver::Qr, l1: 0.5, ..of(Kind::Linear) });
    assert!(message.contains("choose --solver cd or lbfgs"), "{message}");
    let message = refusal(TrainConfig { solver: Solver::Adam, l1: 0.5, ..of(Kind::Svm) });
    assert!(message.contains("choose --solver lbfgs,"), "{message}");
}

#[test]
fn networks_refuse_what_would_have_no_effect() {
    let with = |change: fn(&mut MlpConfig)| {
        let mut config = TrainConfig::of(Kind::Mlp);
        change(config.mlp.as_mut().unwrap());
        config
    };
    let message = refusal(TrainConfig { l1: 0.1, ..TrainConfig::of(Kind::Mlp) });
    assert!(message.contains("no solver of 'mlp'") && !message.contains("--solver"), "{message}");
    for loss in [BoostLoss::Auto, BoostLoss::Logistic, BoostLoss::Squared, BoostLoss::Gaussian] {
        let mut config = with(|mlp| mlp.alpha = 0.3);
        config.mlp.as_mut().unwrap().loss = loss;
        assert!(refusal(config).starts_with("--alpha is for --loss huber or quantile"), "{loss:?}");
    }
    assert!(with(|mlp| (mlp.alpha, mlp.loss) = (0.3, BoostLoss::Quantile)).resolved().is_ok());
    let scaled = TrainConfig { scale_rate: Some(ScaleRate::Linear), ..TrainConfig::of(Kind::Mlp) };
    assert!(!refusal(scaled).contains("measured"), "the rates of networks are not");
}

#[test]
fn steps_of_a_gaussian_are_shortened_where_the_solver_does_not_do_so_itself() {
    let clip = |solver, loss, clip_norm| {
        let mlp = MlpConfig { loss, ..MlpConfig::default() };
        let config = TrainConfig { solver, clip_norm, mlp: Some(mlp), ..TrainConfig::of(Kind::Mlp) };
        let resolved = config.resolved().unwrap();
        assert_eq!(resolved.resolved().unwrap(), resolved);
        resolved.clip_norm
    };
    for solver in [Solver::Sgd, Solver::Lars] {
        assert_eq!(clip(solver, BoostLoss::Gaussian, None), Some(1.0));
        assert_eq!(clip(solver, BoostLoss::Gaussian, Some(30.0)), Some(30.0));
        assert_eq!(clip(solver, BoostLoss::Squared, None), None);
    }
    assert_eq!(clip(Solver::Adamw, BoostLoss::Gaussian, None), None);
}

#[test]
fn numbers_out_of_range_name_their_flag() {
    let base = || of(Kind::Logistic);
    for (config, flag) in [
        (TrainConfig { l1: -1.0, ..base() }, "--l1 -1"),
        (TrainConfig { l2: f64::NAN, ..base() }, "--l2 NaN"),
        (TrainConfig { tolerance: -0.5, ..base() }, "--tolerance"),
        (TrainConfig { learning_rate: Some(0.0), ..base() }, "--learning-rate"),
        (TrainConfig { momentum: 1.0, ..base() }, "--momentum"),
        (TrainConfig { beta1: Some(1.0), ..base() }, "--beta1 1 is not from 0 to below 1"),
        (TrainConfig { beta2: Some(-0.1), ..base() }, "--beta2 -0.1"),
        (TrainConfig { epsilon: Some(0.0), ..base() }, "--epsilon 0 is not a number above 0"),
        (TrainConfig { clip_norm: Some(f64::NAN), ..base() }, "--clip-norm NaN"),
        (TrainConfig { weight_decay: Some(-1.0), ..base() }, "--weight-decay -1"),
        (TrainConfig { average: Some(1.0), ..base() }, "--average 1 is not above 0 and below 1"),
        (TrainConfig { folds: 1, ..base() }, "--folds"),
        (TrainConfig { valid_fraction: 1.0, ..base() }, "--valid-fraction 1"),
        (TrainConfig { valid_fraction: 0.1, folds: 2, ..base() }, "--folds and --valid-fraction"),
        (TrainConfig { sync: Sync::Every(0), ..base() }, "--sync-every"),
        (TrainConfig { class_weight: ClassWeight::Balanced, ..of(Kind::Poisson) }, "--class-weight"),
    ] {
        assert!(refusal(config).starts_with(flag), "{flag}");
    }
}

#[test]
fn what_the_solver_does_not_look_at_goes_back_to_its_default_and_twice_is_once() {
    let odd =
        TrainConfig { epochs: Some(3), lanes: Some(5), momentum: 0.1, learning_rate: Some(7.0), ..of(Kind::Poisson) };
    let resolved = odd.resolved().unwrap();
    assert_eq!(resolved, TrainConfig { solver: Solver::Lbfgs, ..of(Kind::Poisson) });
    assert_eq!(resolved.resolved().unwrap(), resolved);
    let adam = TrainConfig { solver: Solver::Adam, epochs: Some(3), ..of(Kind::Linear) }.resolved().unwrap();
    assert_eq!((adam.learning_rate, adam.epochs), (None, Some(3)));
    assert_eq!(adam.resolved().unwrap(), adam);
}

#[test]
fn settings_of_steps_that_do_not_go_together_are_refused() {
    let sgd = || TrainConfig { solver: Solver::Sgd, ..of(Kind::Logistic) };
    for (config, begin) in [
        (TrainConfig { scale_rate: Some(ScaleRate::Linear), ..sgd() }, "--scale-rate multiplies --learning-rate"),
        (
            TrainConfig { warm_up: Some(WarmUp::Steps(9)), schedule: Schedule::OneCycle, ..sgd() },
            "--warm-up: --schedule one-cycle warms up by itself",
        ),
        (TrainConfig { early_stop: 3, ..sgd() }, "--early-stop looks at rows that are not trained on"),
        (
            TrainConfig { early_stop: 3, valid_fraction: 0.1, sync: Sync::Once, ..sgd() },
            "--early-stop looks at the model as it is trained",
        ),
        (TrainConfig { average: Some(0.9), sync: Sync::Once, ..sgd() }, "--average looks at the model"),
        (TrainConfig { local_after: 3, ..sgd() }, "--local-after says when lanes go on alone"),
        (
            TrainConfig {
                sync: Sync::Every(8),
                mlp: Some(MlpConfig { gradient_bits: 8, ..MlpConfig::default() }),
                ..of(Kind::Mlp)
            },
            "--gradient-bits 8: lanes that step alone send no gradients",
        ),
        (
            TrainConfig {
                sync: Sync::Once,
                mlp: Some(MlpConfig { top_k: Some(0.1), ..MlpConfig::default() }),
                ..of(Kind::Mlp)
            },
            "--top-k 0.1: lanes that step alone send no gradients",
        ),
    ] {
        assert!(refusal(config).starts_with(begin), "{begin}");
    }
    // Those of other solvers are forgotten.
    let lbfgs = TrainConfig { early_stop: 3, average: Some(0.9), beta1: Some(0.5), ..of(Kind::Logistic) };
    assert_eq!(lbfgs.resolved().unwrap(), of(Kind::Logistic).resolved().unwrap());
    let decay = |solver, weight_decay| {
        TrainConfig { solver, weight_decay, ..of(Kind::Linear) }.resolved().unwrap().weight_decay
    };
    assert_eq!(decay(Solver::Adam, Some(0.3)), None);
    assert_eq!([Solver::Adamw, Solver::Lamb, Solver::Lars].map(|of| decay(of, None)), [0.01, 0.01, 0.0].map(Some));
    assert_eq!(decay(Solver::Lamb, Some(0.3)), Some(0.3));
}

#[test]
fn settings_that_nobody_chose_are_stored_as_they_were_before_there_were_any() {
    let stored = |solver| {
        let config = TrainConfig { solver, ..of(Kind::Logistic) }.resolved().unwrap();
        serde_json::to_value(&config).unwrap().as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ")
    };
    // In this order: digests are of it.
    let before = "kind solver l1 l2 tolerance max_iterations epochs learning_rate schedule global_batch lanes momentum nesterov sync missing \
                  class_weight folds valid_fraction seed";
    for solver in [Solver::Lbfgs, Solver::Newton, Solver::Sgd, Solver::Adam] {
        assert_eq!(stored(solver), before);
    }
}

#[test]
fn warming_up_has_words_for_steps_and_epochs() {
    for (word, of, shown) in [
        ("500steps", WarmUp::Steps(500), "500steps"),
        ("1step", WarmUp::Steps(1), "1steps"),
        ("0.5epochs", WarmUp::Epochs(0.5), "0.5epochs"),
        ("2 epochs", WarmUp::Epochs(2.0), "2epochs"),
    ] {
        assert_eq!(word.parse(), Ok(of));
        assert_eq!((of.to_string().as_str(), of.to_string().parse()), (shown, Ok(of)));
    }
    assert_eq!((WarmUp::Epochs(0.5).steps(7), WarmUp::Steps(3).steps(7)), (4, 3));
    for wrong in ["5", "steps", "0steps", "-1epochs", "0epochs", "NaNepochs", "1.5steps", "5m"] {
        assert!(wrong.parse::<WarmUp>().is_err(), "{wrong}");
    }
}
